"""vLLM, llama.cpp, Transformers and endpoints, as clients that load what was written."""
