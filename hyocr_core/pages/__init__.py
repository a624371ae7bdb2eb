"""From a source of pages to samples: sources, duplicates, prompts, model inputs."""
