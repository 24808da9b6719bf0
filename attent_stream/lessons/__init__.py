"""What training makes of a lesson: its weight, its size, and what of it is left out."""
