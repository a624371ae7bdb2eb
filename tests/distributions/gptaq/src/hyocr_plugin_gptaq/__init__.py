"""GPTAQ as a plugin from outside."""
