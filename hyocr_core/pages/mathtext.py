"""LaTeX formulas drawn by Matplotlib's mathtext: no TeX runs, and no file is read that a formula names."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST = 400
"""Characters of a formula that is drawn."""
_DPI = 72
_WIDEST = 4000
"""Pixels."""
_STYLE: dict[Any, Any] = {"text.usetex": False, "mathtext.fontset": "cm", "figure.facecolor": "white"}


def draw_formula(latex: str, size: float) -> Image | None:
    """A formula in black on white as RGB, the same for the same formula. size: of its letters, in pixels.

    None for one that Matplotlib cannot draw: what is no LaTeX, an environment, a command that it does not know, or one
    that is too long.
    """
    formula = " ".join(latex.split())
    if not formula or len(formula) > LONGEST or "$" in formula:
        return None
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        warnings.simplefilter("ignore")  # of a character that the font does not have
        figure = Figure(figsize=(0.01, 0.01), dpi=_DPI)
        FigureCanvasAgg(figure)
        text = figure.text(0, 0, f"${formula}$", fontsize=size, color="black")
        file = io.BytesIO()
        try:
            if text.get_window_extent().width > _WIDEST:
                return None
            figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.05)
        except (ValueError, RuntimeError, OverflowError, RecursionError):
            return None
    with Image.open(file) as image:
        return image.convert("RGB")
