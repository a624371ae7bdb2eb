"""HunyuanOCR as GGUF files for llama.cpp and Ollama, for hyocr."""

__version__ = "0.1.0"
