"""Which of a window's candidates become lessons: scores remembered, whether it pays, and the choice."""
