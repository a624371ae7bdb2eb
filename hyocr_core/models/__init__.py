"""What is particular to an architecture; one module each."""
