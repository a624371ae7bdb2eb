"""Results as tables, and progress, on a terminal."""
