"""`python -m hyocr_core`: the command `hyocr`, as torchrun starts it."""

from __future__ import annotations

from hyocr_core.cli.main import main

if __name__ == "__main__":
    main(prog_name="hyocr")
