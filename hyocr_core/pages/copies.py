"""Whether two images are one page, scaled or compressed in another way: every letter of it, not its look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

_SIDE = 64
"""Cells of a thumbnail, a side: one of an A4 page holds a word or two."""

_GAP = 12
"""Grey levels by which a cell of a copy of the same size may differ."""

_SCALED_GAP = 32
"""The same of a scaled copy, at its sharpest edges."""

_LEAST_SCALE = 0.5
"""Of a smaller copy: letters of smaller ones can no longer be told from each other."""

_BLUR = 1.0
"""Pixels: two ways to scale a page differ in how sharp it becomes."""

_WINDOW = 8
"""Pixels, a side: about a letter."""

_LIGHT = 16
"""Grey levels by which the mean of a window may differ."""

_NOISE = 100.0
"""Variance in grey levels that a lossy format adds: differences of that order say nothing."""

_ALIKE = 0.95
"""Least similarity of a window. Of copies as JPEG of quality 60, of 0.5 to 1.5 times the size, the worst had 0.96; of
pages that differ in a single digit of 10 to 30 pixels the most similar had 0.92, of half the size 0.97."""


@dataclass(frozen=True)
class Thumbnail:
    """The grey levels of a page's cells, (64, 64) uint8, and its width and height in pixels."""

    cells: NDArray[np.uint8]
    size: tuple[int, int]

    def gap(self, other: Thumbnail) -> int | None:
        """The largest difference of a cell in grey levels; None where the two cannot be copies of each other."""
        import numpy as np

        if not _scaled(self.size, other.size):
            return None
        gap = int(np.abs(self.cells.astype(np.int16) - other.cells).max())
        return gap if gap <= (_GAP if self.size == other.size else _SCALED_GAP) else None


def thumbnail(image: Image) -> Thumbnail:
    """The mean of each cell."""
    import numpy as np
    from PIL.Image import Resampling

    return Thumbnail(np.asarray(image.convert("L").resize((_SIDE, _SIDE), Resampling.BOX)), image.size)


def is_copy(one: Image, other: Image) -> bool:
    """Whether both show the same in every window of the size of a letter, at the size of the smaller of them.

    The similarity of a window is the contrast and structure term of SSIM (Wang et al. 2004); their means are compared
    too. A page without any contrast is a copy of none.
    """
    import numpy as np

    if not _scaled(one.size, other.size):
        return False
    size = min(one.size, other.size)
    (light, first), (other_light, second) = _windows(one, size), _windows(other, size)
    if np.abs(light - other_light).max() > _LIGHT:
        return False
    covariance = (first * second).mean(axis=(1, 3))
    variances = (first**2).mean(axis=(1, 3)) + (second**2).mean(axis=(1, 3))
    similarity = (2 * covariance + _NOISE) / (variances + _NOISE)
    return bool(variances.max() > _NOISE and similarity.min() >= _ALIKE)


def _scaled(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether the smaller size is the larger one times a factor that is not too small, to a pixel of rounding."""
    (width, height), (wider, higher) = sorted((one, other))
    return width >= _LEAST_SCALE * wider and abs(width * higher / wider - height) <= 1 + higher / wider


def _windows(image: Image, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The mean grey level of each window, (rows, 1, columns, 1), and the levels less that: (rows, 8, columns, 8)."""
    import numpy as np
    from PIL import ImageFilter
    from PIL.Image import Resampling

    grey = image.convert("L").resize(size, Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(_BLUR))
    pixels = np.pad(np.asarray(grey), [(0, -length % _WINDOW) for length in grey.size[::-1]], mode="edge")
    rows, columns = (length // _WINDOW for length in pixels.shape)
    windows = pixels.reshape(rows, _WINDOW, columns, _WINDOW).astype(np.float32)
    means = windows.mean(axis=(1, 3), keepdims=True)
    return means, windows - means
