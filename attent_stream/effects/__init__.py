"""What teaching changes in training itself: weights, recorded losses, lengths."""
