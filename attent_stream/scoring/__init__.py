"""Per-sample importance: the mathematics (``reference``) and how to get it from a model (``scorer``)."""
