"""GPTQ and round-to-nearest for hyocr."""

__version__ = "0.1.0"
