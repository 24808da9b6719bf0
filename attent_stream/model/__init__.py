"""What a model and its batches are like, and how its outputs are read."""
