"""The trial of several pages at once: what is read, and what counts as another text."""

from __future__ import annotations

from collections.abc import Sequence

from hyocr_core.contract.page_source import Record
from hyocr_core.pages.images import digest_image
from hyocr_core.runtimes.concurrency import SIZES, TEXTS, TRIALS, Trial, trial_pages, try_concurrency


def test_every_reading_has_pixels_of_its_own() -> None:
    """A server that keeps what it has read must not answer from that."""
    read: list[list[Record]] = []

    def reader(pages: Sequence[Record]) -> list[str]:
        read.append(list(pages))
        return [page.answer or "" for page in pages]

    trial = try_concurrency(reader)
    assert [len(pages) for pages in read] == [1] * len(TEXTS) + [len(TEXTS)]
    images = [page.open_image() for pages in read for page in pages]
    assert len({digest_image(image) for image in images}) == len(images) == 2 * len(TEXTS)
    assert {image.size for image in images} == set(SIZES)
    for alone, together in zip(images[: len(TEXTS)], images[len(TEXTS) :], strict=True):
        pixels = zip(alone.tobytes(), together.tobytes(), strict=True)
        assert max(abs(left - right) for left, right in pixels) == 1, "and is read alike"
    assert (trial.changed, trial.telling) == (0, True)


def test_another_page_is_seen_and_a_close_call_forgiven() -> None:
    close = ["invoice 2026-O4", *TEXTS[1:]]
    assert (Trial(TEXTS, close).changed, Trial(TEXTS, close).finding) == (
        0,
        "8 trial pages read the same at once as one by one",
    )
    mixed = Trial(TEXTS, [TEXTS[0], *TEXTS[:-1]])
    assert mixed.changed == 7
    assert mixed.finding == "7 of 8 trial pages read otherwise at once than one by one"


def test_only_pages_that_are_read_are_judged() -> None:
    """A size that the model does not know is guessed at, otherwise at once than alone; that is no mix-up."""
    guessed = ["in|c^ ~~04", *TEXTS[1:]]
    trial = Trial(guessed, ["vo=ce", *TEXTS[1:]])
    assert (trial.changed, trial.finding) == (0, "7 trial pages read the same at once as one by one")
    assert Trial(guessed, ["vo=ce", TEXTS[2], TEXTS[1], *TEXTS[3:]]).changed == 2


def test_a_guess_that_changes_is_no_mix_up() -> None:
    """As the demo reads these pages with vLLM: six of eight it guesses at, so that all are judged."""
    alone = [
        TEXTS[0],
        "total 318.4lh",
        "rg,7 l-hlan",
        "deliverj-z-5b",
        TEXTS[4],
        "order no: 9f",
        "v4 cent",
        "thank you",
    ]
    together = [*alone[:3], "deliverp 552", TEXTS[4], "order no 99", *alone[6:]]
    assert Trial(alone, together).changed == 0
    assert Trial(alone, [alone[0], ",", "eericent", "i larrg, 7 l-kfanbuy", *together[4:]]).changed == 3


def test_a_guess_that_flips_is_no_mix_up() -> None:
    """As vLLM reads an int4 demo with an FP8 tower: "VAT 19 percent" is one of two texts, whatever stands beside it."""
    guesses = iter(["vi -peric", "v4 cent", "vi -peric", "vi -peric"])

    def reader(pages: Sequence[Record]) -> list[str]:
        return [next(guesses) if page.answer == TEXTS[6] else f"{page.answer} ~~~~~~~~" for page in pages]

    trial = try_concurrency(reader)
    assert (trial.changed, trial.alone[6], trial.together[6]) == (0, "vi -peric", "vi -peric")
    assert next(guesses, None) is None, "it was read again"


def test_what_is_mixed_up_each_time_is_found() -> None:
    readings = []

    def reader(pages: Sequence[Record]) -> list[str]:
        readings.append(len(pages))
        texts = [page.answer or "" for page in pages]
        return texts[1:] + texts[:1]

    assert try_concurrency(reader).changed == len(TEXTS)
    assert readings.count(len(TEXTS)) == TRIALS


def test_all_pages_are_judged_of_a_model_that_reads_few() -> None:
    guesses = [str(number) * 9 for number in range(5)]
    mixed = Trial([*guesses, *TEXTS[5:]], [*reversed(guesses), *TEXTS[5:]])
    assert mixed.finding == "4 of 8 trial pages read otherwise at once than one by one"


def test_a_model_that_reads_nothing_tells_nothing() -> None:
    for texts in (["same"] * 8, ["", "", "", "", "a", "b", "c", ""]):
        trial = Trial(texts, texts)
        assert not trial.telling
        assert "too much alike to tell" in trial.finding


def test_pages_are_drawn_as_records() -> None:
    assert [page.answer for page in trial_pages()] == list(TEXTS)
    assert len({page.name for page in trial_pages()}) == len(TEXTS)
