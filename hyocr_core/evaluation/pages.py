"""The pages of an evaluation: checked before anything runs, then handed out in batches that need no padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hyocr_core.calibration.records import Record
from hyocr_core.calibration.samples import Failure, Sample, build_sample, check_failures, iter_samples
from hyocr_core.errors import CalibrationError
from hyocr_core.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

BATCH_PATCHES = 1 << 14  # of all images of a batch: five pages of 1024x768
KEPT_PATCHES = 1 << 16  # of all images kept in memory: 200 MB; pages beyond are built again when their turn comes

_Shape = tuple[tuple[int, ...], bytes]


@dataclass(frozen=True)
class Pages:
    """Usable records and what is known of their model inputs, by index.

    digests: of pixels and texts; image_digests: of pixels alone.
    """

    records: Sequence[Record]
    digests: Sequence[str]
    image_digests: Sequence[str]
    failures: dict[str, str]
    _processor: Any
    _shapes: Sequence[_Shape]
    _patches: Sequence[int]
    _kept: dict[int, dict[str, Tensor]]

    def batches(self, size: int) -> Iterator[list[int]]:
        """Indices of pages with the same prompt length and image grid, at most `size` and BATCH_PATCHES at a time."""
        alike: dict[_Shape, list[int]] = {}
        for index, shape in enumerate(self._shapes):
            alike.setdefault(shape, []).append(index)
        for indices in alike.values():
            step = max(1, min(size, BATCH_PATCHES // self._patches[indices[0]]))
            yield from (indices[start : start + step] for start in range(0, len(indices), step))

    def inputs(self, index: int) -> dict[str, Tensor]:
        """The model inputs of one page's prompt, each tensor as `Sample.inputs` has it."""
        if index in self._kept:
            return self._kept[index]
        record = self.records[index]
        try:
            return build_sample(record, self._processor, with_answer=False).inputs
        except CalibrationError as error:
            raise CalibrationError(f"{record.name}: {error}") from error


def check_pages(records: Sequence[Record], processor: Any, progress: Progress) -> Pages:
    """Build every page once. CalibrationError if more than a tenth of them, or all, cannot be used."""
    usable: list[Record] = []
    digests: list[str] = []
    image_digests: list[str] = []
    shapes: list[_Shape] = []
    patches: list[int] = []
    kept: dict[int, dict[str, Tensor]] = {}
    failures: list[Failure] = []
    progress.start("check pages", len(records))
    for record, sample in zip(records, iter_samples(records, processor, with_answer=False), strict=True):
        progress.step(record.name)
        if isinstance(sample, Failure):
            failures.append(sample)
            progress.say(f"left out {sample.name}: {sample.reason}")
            continue
        patches.append(len(sample.inputs["pixel_values"]))
        if sum(patches) <= KEPT_PATCHES:
            kept[len(usable)] = sample.inputs
        usable.append(record)
        digests.append(sample.digest)
        image_digests.append(sample.image_digest)
        shapes.append(_shape(sample))
    check_failures(failures, len(records))
    reasons = {failure.name: failure.reason for failure in failures}
    return Pages(usable, digests, image_digests, reasons, processor, shapes, patches, kept)


def _shape(sample: Sample) -> _Shape:
    grid, kinds = sample.inputs["image_grid_thw"], sample.inputs["mm_token_type_ids"]
    return tuple(grid.flatten().tolist()), kinds.numpy().tobytes()
