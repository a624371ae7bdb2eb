"""What comes from outside, within bounds: files that are opened, JSON, YAML, and the home in a path.

Whatever a user, a model or a server hands over may be a pipe that nobody writes into, or stand for more than memory
holds. What is read here ends, in a value or in an error. Imports no torch.
"""
