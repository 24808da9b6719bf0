"""``make demo``: train a few arms on one corpus, and report a table and a picture."""
