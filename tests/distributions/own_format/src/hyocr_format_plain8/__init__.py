"""A checkpoint format of its own for hyocr."""
