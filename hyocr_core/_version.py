"""The version of the distribution hyocr-core."""

__version__ = "0.1.0"
