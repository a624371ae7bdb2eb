"""The plugins here are installed by tests; their own tests run where they are installed, see test_outside.py."""

from pathlib import Path

collect_ignore = [path.name for path in Path(__file__).parent.iterdir() if path.is_dir()]
