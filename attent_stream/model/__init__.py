"""Models and batches: their form, and how a model's outputs are read."""
