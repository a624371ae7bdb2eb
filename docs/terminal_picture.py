"""Turn what a command printed on a terminal, colours included, into an SVG for the README.

tmux capture-pane -e -p -t NAME | python docs/terminal_picture.py "make demo" docs/demo.svg
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text


@click.command(help=__doc__)
@click.argument("title")
@click.argument("svg", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--width", default=80, show_default=True)
def main(title: str, svg: Path, width: int) -> None:
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, highlight=False)
    for line in sys.stdin.read().rstrip().splitlines():
        console.print(Text.from_ansi(line), soft_wrap=True)
    svg.write_text(console.export_svg(title=title), encoding="utf-8")


if __name__ == "__main__":
    main()
