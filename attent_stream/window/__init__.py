"""A window of the stream as index arithmetic: lanes, slots, and which samples are selected."""
