"""Take the picture of a report page for the README, with headless Chromium.

make demo && python docs/report_picture.py out/demo/gptq/report/index.html docs/report.png
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import click


@click.command(help=__doc__)
@click.argument("page", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.argument("png", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--chromium", default="chromium", show_default=True)
@click.option("--size", default="1280,1500", show_default=True)
def main(page: Path, png: Path, chromium: str, size: str) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ("--headless=new", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={profile}")
        picture = (f"--window-size={size}", f"--screenshot={png.resolve()}")
        subprocess.run([chromium, *flags, *picture, page.resolve().as_uri()], check=True)


if __name__ == "__main__":
    main()
