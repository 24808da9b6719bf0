"""The order of an epoch's samples, built as a whole or computed as it is read."""
