"""The order of an epoch's samples, built whole or computed as it is read."""
