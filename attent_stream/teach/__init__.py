"""A taught epoch: the teacher, its segments, and where training stands."""
