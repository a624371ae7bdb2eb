"""What a page of some pixels is to the model: patches for the vision tower, tokens for the decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hyocr_core.errors import BadInputError, one_line


@dataclass(frozen=True)
class PageSize:
    """rows, columns: of patches, once the image processor has resized the page. merge: patches along a side of a cell.

    patch: pixels along a side.
    """

    rows: int
    columns: int
    patch: int
    merge: int

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height that the vision tower sees."""
        return self.columns * self.patch, self.rows * self.patch

    @property
    def patches(self) -> int:
        return self.rows * self.columns

    @property
    def tokens(self) -> int:
        return image_tokens(self.rows, self.columns, self.merge)


def image_tokens(rows: int, columns: int, merge: int) -> int:
    """Of an image of so many patches: the merged cells, the newline after each row of them, begin and end."""
    return rows // merge * (columns // merge + 1) + 2


def page_size(image_processor: Any, width: int, height: int, max_pixels: int | None = None) -> PageSize:
    """The size of a page of so many pixels as the image processor shows it, which resizes by its own rules.

    max_pixels: shrinks larger pages to so many, in place of what the processor says.
    Raises BadInputError for a page that it refuses.
    """
    limit = {} if max_pixels is None else {"max_pixels": max_pixels}
    try:
        rows, columns = image_processor.get_number_of_image_patches(height, width, limit)
    except ValueError as error:
        raise BadInputError(f"a page of {width}x{height}: the processor refuses it: {one_line(error)}") from error
    return PageSize(rows, columns, image_processor.patch_size, image_processor.merge_size)
