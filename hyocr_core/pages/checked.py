"""The pages of an evaluation: checked before anything runs, then handed out in batches that need no padding.

A runtime that makes the model inputs itself gets the pages as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError, RunError
from hyocr_core.pages.images import is_nearly_uniform
from hyocr_core.pages.pixels import Resizing
from hyocr_core.pages.samples import (
    UNIFORM,
    Failure,
    Sample,
    build_sample,
    check_failures,
    digest_page,
    iter_samples,
    prompt_text,
)
from hyocr_core.progress import Progress

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

BATCH_PATCHES = 1 << 14  # of all images of a batch: five pages of 1024x768
KEPT_PATCHES = 1 << 16  # of all images kept in memory: 200 MB; pages beyond are built again when their turn comes


@dataclass(frozen=True)
class TextPage:
    """A page for a runtime that returns text.

    prompt, prompt_tokens: as the checkpoint's own template and processor make them; None where it is not here.
    resizing: to the size in which the model is to see it; None leaves that to the runtime's processor.
    """

    index: int
    record: Record
    prompt: str | None
    prompt_tokens: int | None
    resizing: Resizing | None = None

    def open_image(self) -> Image:
        """Its pixels. Raises CalibrationError with the record's name, for a file that has gone or changed."""
        try:
            image = self.record.open_image()
            return image if self.resizing is None else self.resizing.resize(image)
        except CalibrationError as error:
            raise CalibrationError(f"{self.record.name}: {error}") from error


_Shape = tuple[tuple[int, ...], bytes]


@dataclass(frozen=True)
class Pages:
    """Usable records and what is known of their model inputs, by index; without a processor there are none.

    digests: of pixels and texts; image_digests: of pixels alone, both of the page as it is.
    """

    records: list[Record]
    digests: list[str]
    image_digests: list[str]
    failures: dict[str, str]
    _processor: Any | None
    resizing: Resizing | None = None
    _prompt_tokens: list[int] = field(default_factory=list)
    _shapes: list[_Shape] = field(default_factory=list)
    _patches: list[int] = field(default_factory=list)
    _kept: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    def add(self, record: Record, page: Sample | _Opened) -> None:
        """Note a usable page, the next index."""
        if isinstance(page, Sample):
            self._patches.append(len(page.inputs["pixel_values"]))
            if sum(self._patches) <= KEPT_PATCHES:
                self._kept[len(self.records)] = page.inputs
            self._shapes.append(_shape(page))
            self._prompt_tokens.append(page.prompt_tokens)
        self.records.append(record)
        self.digests.append(page.digest)
        self.image_digests.append(page.image_digest)

    def batches(self, size: int) -> Iterator[list[int]]:
        """Indices of pages with the same prompt length and image grid, at most `size` and BATCH_PATCHES at a time."""
        alike: dict[_Shape, list[int]] = {}
        for index, shape in enumerate(self._shapes):
            alike.setdefault(shape, []).append(index)
        for indices in alike.values():
            step = max(1, min(size, BATCH_PATCHES // self._patches[indices[0]]))
            yield from (indices[start : start + step] for start in range(0, len(indices), step))

    def size(self, index: int) -> tuple[int, int]:
        """Tokens of one page's prompt, and patches of its image."""
        return self._prompt_tokens[index], self._patches[index]

    def text(self, index: int) -> TextPage:
        """One page as it is."""
        record = self.records[index]
        if self._processor is None:
            return TextPage(index, record, None, None, self.resizing)
        prompt = prompt_text(record, self._processor)
        return TextPage(index, record, prompt, self._prompt_tokens[index], self.resizing)

    def inputs(self, index: int) -> dict[str, Tensor]:
        """The model inputs of one page's prompt, each tensor as `Sample.inputs` has it.

        Raises CalibrationError, or RunError, for a page that has gone, or changed, since it was checked.
        """
        if index in self._kept:
            return self._kept[index]
        record = self.records[index]
        try:
            sample = build_sample(record, self._processor, with_answer=False)
        except CalibrationError as error:
            raise CalibrationError(f"{record.name}: {error}") from error
        if sample.digest != self.digests[index]:
            raise RunError(f"{record.name}: the page has changed since it was checked; run again")
        return sample.inputs


@dataclass(frozen=True)
class _Opened:
    """A page of which only the image was looked at; the fields are those of a Sample."""

    digest: str
    image_digest: str
    notices: list[str]


def check_pages(
    records: Sequence[Record],
    processor: Any | None,
    progress: Progress,
    *,
    max_tokens: int | None = None,
    max_pixels: int | None = None,
) -> Pages:
    """Build every page once, as `look_at_pages`.

    Raises CalibrationError if more than a tenth of them, or all, cannot be used.
    """
    progress.start("check pages", len(records))
    pages = look_at_pages(records, processor, progress, max_tokens=max_tokens, max_pixels=max_pixels)
    failures = [Failure(name, reason) for name, reason in pages.failures.items()]
    check_failures(failures, len(records))
    return pages


def look_at_pages(
    records: Sequence[Record],
    processor: Any | None,
    progress: Progress,
    *,
    max_tokens: int | None = None,
    max_pixels: int | None = None,
) -> Pages:
    """Build every page once; without a processor only open it. Those that cannot be used are `failures`.

    max_tokens: most of a prompt and its answer. max_pixels: those to which the processor was lowered; without one, the
    published limits are.
    """
    pages = Pages([], [], [], {}, processor, None if max_pixels is None else Resizing.of(processor, max_pixels))
    found: Iterator[_Opened | Sample | Failure]
    if processor is None:
        found = map(partial(_open, resizing=pages.resizing), records)
    else:
        found = iter_samples(records, processor, with_answer=False, max_tokens=max_tokens)
    for record, page in zip(records, found, strict=True):
        progress.step(record.name)
        if isinstance(page, Failure):
            pages.failures[page.name] = page.reason
            progress.say(f"left out {page.name}: {page.reason}")
        else:
            pages.add(record, page)
            for line in page.notices:
                progress.say(line)
    return pages


def _open(record: Record, resizing: Resizing | None) -> _Opened | Failure:
    try:
        image = record.open_image()
        if resizing is not None:
            resizing.size(image)
        notices = [f"{record.name}: {UNIFORM}"] if is_nearly_uniform(image) else []
        return _Opened(*digest_page(record, image), notices)
    except CalibrationError as error:
        return Failure(record.name, str(error))


def _shape(sample: Sample) -> _Shape:
    grid, kinds = sample.inputs["image_grid_thw"], sample.inputs["mm_token_type_ids"]
    return tuple(grid.flatten().tolist()), kinds.numpy().tobytes()
