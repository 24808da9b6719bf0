"""What a run has chosen, to look at."""
