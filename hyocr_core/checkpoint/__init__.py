"""Safetensors in and out: reader, writer, journal, upload."""
