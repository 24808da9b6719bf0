"""What is remembered of samples: the ledger."""
