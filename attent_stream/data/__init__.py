"""The data set and the data loader."""
