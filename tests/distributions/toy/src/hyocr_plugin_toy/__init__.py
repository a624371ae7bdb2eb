"""A whole method in one screen: what the tests install beside hostile plugins."""
