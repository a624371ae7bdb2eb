"""What is kept beside a checkpoint: results, evidence, comparisons."""
