"""Where samples come in which order: windows and lanes, an epoch's segments, and where it stands."""
