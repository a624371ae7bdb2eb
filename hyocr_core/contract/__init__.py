"""What crosses to a plugin: hooks, types and options, and the classes that plugins derive from."""
