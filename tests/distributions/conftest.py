"""The plugins here are installed by tests; their own tests run where they are installed, see test_toy.py."""

collect_ignore = ["toy", "hostile", "own_format"]
