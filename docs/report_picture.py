"""Take pictures of a report page for the documentation, with headless Chromium.

make demo && python -m docs.report_picture out/demo/gptq/report/index.html docs/report.png

With --every there are six: at 1400, 800 and 390 pixels, light and dark, such as report-800-dark.webp for report.webp.
"""

from __future__ import annotations

import io
from pathlib import Path

import click
from PIL import Image

from tests.report.browser import Browser, browser

README = 1280, 1500
"""Width and height of the README's picture, in pixels."""
WIDTHS = 1400, 800, 390
HEIGHT = 2200
COLOURS = 256


@click.command(help=__doc__)
@click.argument("page", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.argument("picture", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--every", is_flag=True, help="Every width, light and dark.")
def main(page: Path, picture: Path, every: bool) -> None:
    with browser() as tab:
        if not every:
            take(tab, page, README[0], README[1], picture)
            return
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                name = f"{picture.stem}-{width}-{scheme}{picture.suffix}"
                take(tab, page, width, HEIGHT, picture.with_name(name), dark=scheme == "dark")


def take(tab: Browser, page: Path, width: int, height: int, picture: Path, *, dark: bool = False) -> None:
    """Save the upper `height` pixels of a page, in few colours, so that the repository stays small."""
    tab.open(page, width, dark=dark)
    shown = Image.open(io.BytesIO(tab.shown(height))).convert("RGB")
    picture.parent.mkdir(parents=True, exist_ok=True)
    shown.quantize(COLOURS).save(picture, quality=80)


if __name__ == "__main__":
    main()
