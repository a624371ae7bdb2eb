"""Several processes that do one job: who does what, and what they tell each other."""
