"""FP8 for hyocr."""

__version__ = "0.1.0"
