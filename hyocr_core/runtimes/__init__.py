"""Checkpoints in the runtimes that serve them: `native` loads one in Transformers, `vllm` reads with one in vLLM."""
