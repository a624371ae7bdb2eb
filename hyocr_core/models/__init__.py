"""Everything that is particular to HunyuanOCR: names, blocks, fused groups."""
