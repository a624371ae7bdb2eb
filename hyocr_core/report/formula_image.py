"""A LaTeX formula as an image on the page, so that nothing of its source gets there as markup."""

from __future__ import annotations

import base64
import io

from hyocr_core.pages.mathtext import draw_formula

_SIZE = 24
"""Pixels of its letters."""


def formula_image(latex: str) -> str | None:
    """A PNG image as a data URI, the same for the same formula; None for one that cannot be drawn."""
    image = draw_formula(latex, _SIZE)
    if image is None:
        return None
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
