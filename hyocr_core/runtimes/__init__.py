"""vLLM and Transformers, as clients that load what was written."""
