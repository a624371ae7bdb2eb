"""How many pixels of a page the model is shown: what its image processor allows, lowered for a run."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from hyocr_core.errors import CalibrationError, ConfigError, one_line
from hyocr_core.pages.page_size import page_size

if TYPE_CHECKING:
    from PIL.Image import Image

PUBLISHED_PIXELS = (512 * 512, 4096 * 4096)
"""The least and the most that the published processor makes of a page (version 1.5)."""


def lower_pixels(image_processor: Any, max_pixels: int) -> None:
    """Let an image processor scale pages down to `max_pixels`; raises ConfigError for what it does not take."""
    least, most = image_processor.size["shortest_edge"], image_processor.size["longest_edge"]
    if not least <= max_pixels <= most:
        raise ConfigError(
            f"max_pixels: {max_pixels:,} is not between {least:,} and {most:,}, what the model's image processor takes"
        )
    image_processor.size = {"shortest_edge": least, "longest_edge": max_pixels}


def check_pixels(image_processor: Any, page: tuple[int, int], shown: tuple[int, int]) -> None:
    """Raise CalibrationError for a page that a lowered processor has left fewer pixels than its least.

    Any other processor would enlarge it again, so that a runtime would see another page. page: width and height of the
    page; shown: of what the processor makes of it.
    """
    least, most = image_processor.size["shortest_edge"], image_processor.size["longest_edge"]
    if prod(shown) < least:
        raise CalibrationError(
            f"of max_pixels {most:,} it gets {shown[0]}x{shown[1]}, fewer pixels than the {least:,} that the model's "
            f"image processor takes: give --max-pixels {_enough(image_processor, page)} or more"
        )


def _enough(image_processor: Any, page: tuple[int, int]) -> int:
    """The least max_pixels of which a page gets as many pixels as the processor takes."""
    least, most = image_processor.size["shortest_edge"], image_processor.size["longest_edge"]
    # Sides are cut to whole cells, and by no more than half.
    tried = range(most, 4 * most + 1)
    return tried[bisect_left(tried, least, key=lambda pixels: prod(page_size(image_processor, *page, pixels).pixels))]


@dataclass(frozen=True)
class Resizing:
    """Brings pages to the size in which a lowered image processor shows them, for a runtime with one of its own.

    A page of that size is left alone by the model's processor, wherever it runs.
    """

    image_processor: Any

    @classmethod
    def of(cls, processor: Any | None, max_pixels: int) -> Resizing:
        """That of a processor which is lowered already, or of the published one if there is none here."""
        if processor is not None:
            return cls(processor.image_processor)
        from transformers.models.hunyuan_vl.image_processing_pil_hunyuan_vl import HunYuanVLImageProcessorPil

        least, most = PUBLISHED_PIXELS
        published = HunYuanVLImageProcessorPil(size={"shortest_edge": least, "longest_edge": most})
        lower_pixels(published, max_pixels)
        return cls(published)

    def size(self, image: Image) -> tuple[int, int]:
        """Width and height that it gets. Raises CalibrationError for a page that cannot be shown."""
        try:
            rows, columns = self.image_processor.get_number_of_image_patches(image.height, image.width)
        except ValueError as error:
            raise CalibrationError(f"the processor refuses it: {one_line(error)}") from error
        patch = self.image_processor.patch_size
        shown = columns * patch, rows * patch
        check_pixels(self.image_processor, image.size, shown)
        return shown

    def resize(self, image: Image) -> Image:
        """The very pixels that the processor makes of it. Raises as `size`."""
        from PIL.Image import Resampling

        size = self.size(image)
        return image if image.size == size else image.resize(size, Resampling.BICUBIC)
