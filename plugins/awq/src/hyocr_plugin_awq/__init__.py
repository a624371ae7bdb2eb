"""AWQ for hyocr."""

__version__ = "0.1.0"
