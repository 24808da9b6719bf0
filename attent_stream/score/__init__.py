"""Scores of samples, and cheaper ways to compute them."""
