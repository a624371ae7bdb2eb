"""How well a checkpoint reads: pages read, scored, and compared with a baseline."""
