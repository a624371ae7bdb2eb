"""What was found, for people: the page, its plots, the model card."""
