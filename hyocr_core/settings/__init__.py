"""What a user may say: the configuration of a run, its file, and AngelSlim's YAML."""
