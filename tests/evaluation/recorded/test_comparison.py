from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyocr_core.checkpoint.quant_report import MethodRecord, ModelRecord
from hyocr_core.errors import BadInputError, CheckpointError
from hyocr_core.evaluation.recorded.comparison import side_by_side
from hyocr_core.evaluation.scores.result import PageResult
from tests.report import built

PAGES = built.some_pages(60)


def rate(pages: tuple[PageResult, ...]) -> float:
    return sum(page.errors or 0 for page in pages) / sum(len(page.reference or "") for page in pages)


def add(folder: Path, name: str, size: int, pages: tuple[PageResult, ...] = PAGES, **changes: Any) -> Path:
    """A checkpoint whose CER is that of its pages."""
    score = built.score(rate(pages), weight_bytes=size, **changes)
    return built.checkpoint(folder / name, None, built.evaluation(pages, model=score))


def worse(pages: tuple[PageResult, ...], every: int) -> tuple[PageResult, ...]:
    """One more error on each of these pages."""
    return tuple(
        page.model_copy(update={"errors": (page.errors or 0) + 1}) if index % every == 0 else page
        for index, page in enumerate(pages)
    )


def test_the_front_is_marked_and_the_baseline_stands_beside(tmp_path: Path) -> None:
    folders = [add(tmp_path, "small", 900), add(tmp_path, "bad", 950, worse(PAGES, 2)), add(tmp_path, "large", 1000)]
    several = side_by_side(folders)
    assert [row.name for row in several.candidates] == ["baseline", "small", "bad", "large"]
    assert [row.kind for row in several.candidates] == ["baseline"] + 3 * ["quantized"]
    costs = [(row.weight_bytes or 0, row.cer or 0) for row in several.candidates]
    assert [row.front for row in several.candidates] == [
        not any(other[0] <= mine[0] and other[1] <= mine[1] and other != mine for other in costs) for mine in costs
    ]
    assert several.candidates[1].front
    assert not several.candidates[2].front
    assert several.pages == 60


def test_the_difference_to_the_best_is_paired(tmp_path: Path) -> None:
    other = worse(PAGES, 3)
    several = side_by_side([add(tmp_path, "best", 900), add(tmp_path, "other", 900, other)])
    best, behind = several.candidates[1:]
    assert best.behind_best is None
    assert behind.behind_best == pytest.approx(rate(other) - rate(PAGES))
    # An independent bootstrap of the same difference: the resampled pages are the same for both.
    gaps = np.array([(mine.errors or 0) - (first.errors or 0) for mine, first in zip(other, PAGES, strict=True)])
    sizes = np.array([len(page.reference or "") for page in PAGES])
    drawn = np.random.default_rng(5).integers(60, size=(20_000, 60))
    low, high = np.quantile(gaps[drawn].sum(1) / sizes[drawn].sum(1), (0.025, 0.975))
    assert behind.behind_best_interval == pytest.approx((low, high), rel=0.05)
    assert low > 0, "paired, the difference is beyond chance"


def test_only_the_same_pages_are_compared(tmp_path: Path) -> None:
    folders = [add(tmp_path, "one", 900), add(tmp_path, "two", 900, built.some_pages(59, seed=1))]
    for cross in (False, True):
        with pytest.raises(BadInputError, match=r"not read the same pages: one: 60 pages of .*; two: 59 pages"):
            side_by_side(folders, cross_runtime=cross)


def test_the_largest_set_that_all_have_read_is_compared(tmp_path: Path) -> None:
    folders = [add(tmp_path, "one", 900), add(tmp_path, "two", 900, built.some_pages(59, seed=1))]
    for count in (12, 7):
        common = built.evaluation(built.some_pages(count, seed=2))
        for folder in folders:
            built.record(folder, common, common.model_dump_json())
    assert side_by_side(folders).pages == 12


def test_other_runtimes_only_when_asked_to(tmp_path: Path) -> None:
    folders = [add(tmp_path, "one", 900), add(tmp_path, "two", 900, runtime="vllm")]
    with pytest.raises(BadInputError, match=r"not read alike: one: dequant; two: vllm; .*--cross-runtime"):
        side_by_side(folders)
    runtimes = [row.runtime for row in side_by_side(folders, cross_runtime=True).candidates]
    assert runtimes == ["transformers", "dequant", "vllm"]


def test_pages_of_other_pixels_are_not_compared_unasked(tmp_path: Path) -> None:
    results = [built.evaluation(PAGES, model=built.score(rate(PAGES)), max_pixels=pixels) for pixels in (None, 4096)]
    folders = [built.checkpoint(tmp_path / name, None, result) for name, result in zip("ab", results, strict=True)]
    with pytest.raises(BadInputError, match=r"a: all pixels; b: 4096 pixels; .*--cross-runtime"):
        side_by_side(folders)


@pytest.mark.parametrize(
    ("other", "named"),
    [({"task": "table:en"}, "table:en task"), ({"system": "Be brief."}, "'Be brief.' system message")],
)
def test_pages_that_were_asked_otherwise_are_not_compared_unasked(
    tmp_path: Path, other: dict[str, str], named: str
) -> None:
    results = [built.evaluation(PAGES, model=built.score(rate(PAGES)), **asked) for asked in ({}, other)]
    folders = [built.checkpoint(tmp_path / name, None, result) for name, result in zip("ab", results, strict=True)]
    with pytest.raises(BadInputError, match=rf"a: default [a-z ]+; b: {named}; .*--cross-runtime"):
        side_by_side(folders)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (
            {"repetition_penalty": 1.0},
            "two: repetition penalty 1, at most 2048 new tokens, loops stopped",
        ),
        ({"repetition_penalty": None}, "two: repetition penalty its own"),
        ({"max_new_tokens": 64}, "at most 64 new tokens"),
        ({"stop_loops": False}, "loops kept"),
        ({"stop_token_ids": (260,)}, r"end tokens \[260\]"),
    ],
)
def test_other_decoding_only_when_asked_to(tmp_path: Path, other: dict[str, Any], named: str) -> None:
    folders = [add(tmp_path, "one", 900)]
    result = built.evaluation(PAGES)
    changed = result.model_copy(update={"decoding": result.decoding.model_copy(update=other)})
    folders.append(built.checkpoint(tmp_path / "two", None, changed))
    with pytest.raises(BadInputError, match=rf"these were not read alike: .*{named}.*--cross-runtime"):
        side_by_side(folders)
    assert len(side_by_side(folders, cross_runtime=True).candidates) == 3


def test_only_quantizations_of_one_model_are_compared(tmp_path: Path) -> None:
    other = ModelRecord(source="other/Model", revision=None, sha256={"model": "other"})
    folders = [
        add(tmp_path, "one", 900),
        built.checkpoint(tmp_path / "two", built.quant_report(model=other), built.evaluation(PAGES)),
    ]
    with pytest.raises(BadInputError, match="different checkpoints: one: tencent/HunyuanOCR; two: other/Model"):
        side_by_side(folders)


def test_what_was_not_evaluated_is_named_with_the_command(tmp_path: Path) -> None:
    folders = [add(tmp_path, "one", 900), built.checkpoint(tmp_path / "not yet")]
    with pytest.raises(BadInputError) as caught:
        side_by_side(folders)
    command = (
        f"hyocr eval '{folders[1]}' --data /home/someone/secret/heldout.jsonl --baseline tencent/HunyuanOCR --record"
    )
    assert str(caught.value) == f"{folders[1]}: has no recorded evaluation: {command}"


def test_each_checkpoint_is_compared_once(tmp_path: Path) -> None:
    folder = add(tmp_path, "one", 900)
    with pytest.raises(BadInputError, match="each checkpoint once"):
        side_by_side([folder, folder])


def test_a_folder_that_hyocr_did_not_write(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        side_by_side([add(tmp_path, "one", 900), tmp_path / "none"])


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [add(tmp_path / "monday", "int4", 900), add(tmp_path / "tuesday", "int4", 900)]
    assert [row.name for row in side_by_side(folders).candidates[1:]] == ["monday/int4", "tuesday/int4"]


def test_without_transcripts_nothing_is_on_the_front(tmp_path: Path) -> None:
    pages = tuple(page.model_copy(update={"reference": None, "errors": None}) for page in PAGES)
    folders = []
    for name in ("one", "two"):
        score = built.score(0.01).model_copy(update={"cer": None, "cer_interval": None})
        result = built.evaluation(pages, model=score, baseline=None, comparison=None)
        method = MethodRecord(name=name, distribution="x", version="1", config={})
        folders.append(built.checkpoint(tmp_path / name, built.quant_report(method=method), result))
    rows = side_by_side(folders).candidates
    assert [(row.method, row.format, row.cer, row.behind_best, row.front) for row in rows] == [
        ("one", None, None, None, False),
        ("two", None, None, None, False),
    ]
