"""What becomes of a window's selected samples: their order, and how they are cut."""
