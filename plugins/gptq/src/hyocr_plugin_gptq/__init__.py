"""GPTQ and round to nearest (RTN) for hyocr."""

__version__ = "0.1.0"
