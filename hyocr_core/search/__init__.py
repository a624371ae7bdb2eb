"""What `hyocr search` does: measure what each group of layers costs, choose under a budget, and try the choice."""
