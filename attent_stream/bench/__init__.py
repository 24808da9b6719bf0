"""Compare arms of a task with plain training, shorter plain training and random choice."""
