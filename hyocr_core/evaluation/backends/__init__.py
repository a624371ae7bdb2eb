"""Runtimes that only return text: `choice` says which is meant, `readers` read with them, one checkpoint at a time."""
