"""Model inputs: each page alone, its texts exact, its failures named."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError, CheckpointError
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.prompts import DEFAULT_PROMPT
from hyocr_core.pages.samples import UNIFORM, Failure, Sample, build_sample, check_failures, iter_samples
from hyocr_core.pages.sources import open_source

BOS, USER, END, SYSTEM_END = (
    "<｜hy_begin▁of▁sentence｜>",
    "<｜hy_User｜>",
    "<｜hy_Assistant｜>",
    "<｜hy_place▁holder▁no▁3｜>",
)
START, IMAGE, STOP = (f"<｜hy_place▁holder▁no▁{number}｜>" for number in (100, 102, 101))
DEMO = Path(__file__).parents[2] / "examples" / "demo-ocr"


def blank(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), "white")


def record(
    question: str | None = "Read.",
    answer: str | None = None,
    size: tuple[int, int] = (256, 32),
    system: str | None = None,
    open_image: Callable[[], Image.Image] | None = None,
) -> Record:
    return Record("page.png", question, answer, open_image or partial(blank, *size), system)


def expected_ids(text: str) -> list[int]:
    """The ids by the tokenizer's own file, without Transformers."""
    return Tokenizer.from_file(str(DEMO / "checkpoint" / "tokenizer.json")).encode(text, add_special_tokens=False).ids


def image_tokens(width: int, height: int) -> int:
    return (height // 32) * (width // 32 + 1) + 2


def templated(checkpoint: Path, old: str, new: str) -> Any:
    """The processor with a changed chat template."""
    path = checkpoint / "chat_template.jinja"
    template = path.read_text()
    assert old in template
    path.write_text(template.replace(old, new))
    return load_processor(checkpoint)


@pytest.mark.parametrize("size", [(256, 32), (64, 96), (32, 32), (160, 128)])
def test_a_sample_is_one_page_alone(processor: Any, size: tuple[int, int]) -> None:
    inputs = build_sample(record(size=size), processor, with_answer=False).inputs
    count = image_tokens(*size)
    ids = expected_ids(BOS + SYSTEM_END + START + IMAGE * count + STOP + "Read." + USER)
    assert inputs["input_ids"].tolist() == [ids]
    assert inputs["mm_token_type_ids"].tolist() == [[0] * 3 + [1] * count + [0] * (len(ids) - 3 - count)]
    assert inputs["image_grid_thw"].tolist() == [[1, size[1] // 16, size[0] // 16]]
    assert inputs["pixel_values"].shape == (size[0] * size[1] // 256, 768)
    assert inputs["pixel_values"].dtype == torch.float32
    assert sorted(inputs) == ["image_grid_thw", "input_ids", "mm_token_type_ids", "pixel_values"]


def test_pixels_are_those_of_the_page(processor: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    sample = build_sample(record(open_image=lambda: Image.fromarray(pixels)), processor, with_answer=False)
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    first = ((pixels[:16, :16] / 255 - mean) / std).transpose(2, 0, 1).ravel()
    np.testing.assert_allclose(sample.inputs["pixel_values"][0].numpy(), first, atol=1e-5)


def test_no_sample_is_padded(processor: Any) -> None:
    pad = expected_ids("<｜hy_▁pad▁｜>")
    assert len(pad) == 1
    for size, text in itertools.product([(32, 32), (256, 32)], ["a", "a much longer question than the first"]):
        ids = build_sample(record(text, size=size), processor, with_answer=False).inputs["input_ids"]
        assert pad[0] not in ids[0].tolist()


def test_an_answer_follows_the_prompt_and_ends_as_the_template_says(processor: Any) -> None:
    asked = record(answer=" Über\n\t 東京 <b> ")
    sample = build_sample(asked, processor, with_answer=True)
    prompt = build_sample(asked, processor, with_answer=False)
    ids = sample.inputs["input_ids"][0].tolist()
    assert sample.prompt_tokens == prompt.inputs["input_ids"].shape[1] == prompt.prompt_tokens
    assert ids[: sample.prompt_tokens] == prompt.inputs["input_ids"][0].tolist()
    assert ids[sample.prompt_tokens :] == [*expected_ids(" Über\n\t 東京 <b> "), *expected_ids(END)]
    assert processor.tokenizer.decode(ids[sample.prompt_tokens : -1]) == asked.answer
    assert sample.inputs["mm_token_type_ids"].shape == sample.inputs["input_ids"].shape


def test_an_empty_answer_is_an_answer_and_none_is_not(processor: Any) -> None:
    empty = build_sample(record(answer=""), processor, with_answer=True)
    none = build_sample(record(answer=None), processor, with_answer=True)
    assert empty.inputs["input_ids"][0, empty.prompt_tokens :].tolist() == expected_ids(END)
    assert none.prompt_tokens == none.inputs["input_ids"].shape[1]


def test_the_default_prompt_yields_to_the_records_own(processor: Any) -> None:
    def text(question: str | None, system: str | None = None) -> str:
        sample = build_sample(record(question, size=(32, 32), system=system), processor, with_answer=False)
        return str(processor.tokenizer.decode(sample.inputs["input_ids"][0]))

    image = START + IMAGE * 4 + STOP
    assert text(None) == BOS + SYSTEM_END + image + DEFAULT_PROMPT + USER
    assert text("Lies das.") == BOS + SYSTEM_END + image + "Lies das." + USER
    assert text("Lies das.", "Genau!") == BOS + "Genau!" + SYSTEM_END + image + "Lies das." + USER


@pytest.mark.parametrize("token", [IMAGE, START, STOP, BOS, END])
@pytest.mark.parametrize("field", ["question", "answer", "system"])
def test_control_tokens_in_a_text_are_refused(processor: Any, token: str, field: str) -> None:
    changes: dict[str, Any] = {field: f"a {token} b"}
    spoilt = replace(record(), **changes)
    with pytest.raises(CalibrationError, match="its text holds the control token"):
        build_sample(spoilt, processor, with_answer=True)


def test_a_template_that_breaks_the_prompt_is_refused(checkpoint: Path) -> None:
    mark = "{{- '<｜hy_User｜>' -}}"
    processor = templated(checkpoint, mark, mark + "{%- if loop.last -%}Think.{%- endif -%}")
    assert isinstance(build_sample(record(answer="abc"), processor, with_answer=False), Sample)
    with pytest.raises(CheckpointError, match="chat template"):
        list(iter_samples([record(answer="abc")], processor, with_answer=True))


def test_a_tokenizer_that_merges_prompt_and_answer_is_refused(checkpoint: Path) -> None:
    """The texts keep the prefix, but `Extract the text in the image.` across the border is a single token."""
    processor = templated(checkpoint, "{{- '<｜hy_User｜>' -}}", "{{- 'Extract the ' -}}")
    with pytest.raises(CheckpointError, match="chat template"):
        build_sample(record(answer="text in the image."), processor, with_answer=True)


@pytest.mark.parametrize("answer", [" abc", "abc\n"])
def test_a_template_that_trims_a_text_is_a_failure_of_that_sample(checkpoint: Path, answer: str) -> None:
    path = checkpoint / "chat_template.jinja"
    template = path.read_text().replace("part['text'] -}}", "part['text'] | trim -}}")
    path.write_text(template.replace("message['content'] -}}", "message['content'] | trim -}}"))
    processor = load_processor(checkpoint)
    found = list(iter_samples([record(answer=answer), record(answer="abc")], processor, with_answer=True))
    assert found[0] == Failure("page.png", "the chat template changes the text of the answer")
    assert isinstance(found[1], Sample)
    with pytest.raises(CalibrationError, match="changes the text of the question"):
        build_sample(record(question=" Read. "), processor, with_answer=False)


def test_a_template_that_refuses_a_conversation_is_a_failure_of_that_sample(checkpoint: Path) -> None:
    processor = templated(
        checkpoint,
        "{%- if message['role'] == 'system' -%}",
        "{%- if 'vague' in message['content'] -%}{{ raise_exception('nobody is') }}{%- endif -%}"
        "{%- if message['role'] == 'system' -%}",
    )
    (failure,) = iter_samples([record(system="Be vague.")], processor, with_answer=False)
    assert failure == Failure("page.png", "the chat template does not render: nobody is")


def test_a_prompt_that_leaves_no_room_for_an_answer_is_a_failure_that_counts_its_tokens(processor: Any) -> None:
    asked = record(answer="abc")
    whole = build_sample(asked, processor, with_answer=True)
    prompt, image = whole.prompt_tokens, image_tokens(256, 32)
    assert build_sample(asked, processor, with_answer=False, max_tokens=prompt + 1).prompt_tokens == prompt
    for with_answer, answer in ((True, 4), (False, 0)):
        (failure,) = iter_samples([asked], processor, with_answer=with_answer, max_tokens=prompt)
        assert isinstance(failure, Failure)
        assert failure.reason == (
            f"its image has {image} tokens, its question {prompt - image} and its answer {answer}, and the model takes "
            f"{prompt}: no answer fits; lower --max-pixels"
        )


def test_an_answer_that_is_too_long_is_cut_and_nothing_else_is(processor: Any) -> None:
    asked = record(answer="a long answer")
    whole = build_sample(asked, processor, with_answer=True)
    tokens = whole.inputs["input_ids"].shape[1]
    assert whole.notices == [f"{whole.name}: {UNIFORM}"]
    cut = build_sample(asked, processor, with_answer=True, max_tokens=whole.prompt_tokens + 2)
    left = f"cut to 2 of {tokens - whole.prompt_tokens} tokens, since the model takes no more"
    assert cut.notices[1:] == [f"{cut.name}: its answer is {left}"]
    for name, value in whole.inputs.items():
        per_token = name in ("input_ids", "mm_token_type_ids")
        assert torch.equal(cut.inputs[name], value[:, : whole.prompt_tokens + 2] if per_token else value)
    assert cut.prompt_tokens == whole.prompt_tokens


def test_the_tokenizers_own_limit_is_none(processor: Any, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        most = processor.tokenizer.model_max_length
        sample = build_sample(record(answer="x" * most), processor, with_answer=True)
        assert sample.inputs["input_ids"].shape[1] > most
        assert not caplog.records
        processor.tokenizer("x" * (most + 1))
        assert "Token indices sequence length is longer" in caplog.text
    finally:
        logger.removeHandler(caplog.handler)


def test_a_sliver_of_a_page_is_a_failure(processor: Any) -> None:
    (failure,) = iter_samples([record(size=(3000, 2))], processor, with_answer=False)
    assert isinstance(failure, Failure)
    assert failure.reason.startswith("the processor refuses it: absolute aspect ratio")


def test_failures_are_named_and_the_rest_goes_on(processor: Any, tmp_path: Path) -> None:
    blank(32, 32).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    blank(32, 32).save(tmp_path / "c.png")
    first, second, third = iter_samples(open_source(str(tmp_path)), processor, with_answer=True)
    assert (first.name, third.name) == ("a.png", "c.png")
    assert second == Failure(
        "b.png", "is no PNG, JPEG, WebP, BMP, TIFF, GIF, JPEG 2000, AVIF or HEIC image, or of a rare kind"
    )


def test_samples_are_built_one_at_a_time(processor: Any) -> None:
    opened: list[int] = []

    def page(index: int) -> Image.Image:
        opened.append(index)
        return blank(32, 32)

    samples = iter_samples((record(open_image=partial(page, i)) for i in range(100)), processor, with_answer=False)
    next(samples)
    next(samples)
    assert opened == [0, 1]


def test_digests_tell_pages_and_texts_apart(processor: Any) -> None:
    def digests(**options: Any) -> tuple[str, str]:
        sample = build_sample(record(**options), processor, with_answer=False)
        return sample.image_digest, sample.digest

    image, base = digests(question="ab", answer="c")
    assert digests(question="ab", answer="c") == (image, base)
    assert image == hashlib.sha256(b"RGB 256x32\n" + b"\xff" * (256 * 32 * 3)).hexdigest()
    texts = [("a", "bc", None), ("ab", None, None), ("ab", "", None), ("ab", "c", "d"), ("ab", None, "c")]
    others = [digests(question=question, answer=answer, system=system) for question, answer, system in texts]
    assert {other[0] for other in others} == {image}
    assert len({base, *(other[1] for other in others)}) == len(texts) + 1
    assert digests(size=(32, 256))[0] != image
    assert digests(question=None)[1] == digests(question=DEFAULT_PROMPT)[1]
    assert digests(system=None)[1] == digests(system="")[1]


@pytest.mark.parametrize(("failed", "total"), [(0, 1), (1, 10), (12, 128), (0, 9)])
def test_a_tenth_may_fail(failed: int, total: int) -> None:
    check_failures([Failure("x", "y")] * failed, total)


@pytest.mark.parametrize(("failed", "total"), [(1, 1), (1, 9), (2, 10), (13, 128), (0, 0)])
def test_more_than_a_tenth_stops_the_run(failed: int, total: int) -> None:
    with pytest.raises(CalibrationError) as caught:
        check_failures([Failure("x", "y")] * failed, total)
    assert caught.value.exit_code == 2


def test_the_first_failures_are_named() -> None:
    failures = [Failure(f"{index}.png", f"reason {index}") for index in range(5)]
    with pytest.raises(CalibrationError) as caught:
        check_failures(failures, 20)
    assert str(caught.value) == (
        "5 of 20 samples cannot be used: 0.png: reason 0; 1.png: reason 1; 2.png: reason 2; and 2 more"
    )


def test_the_demo_data_fit_the_demo_checkpoint(processor: Any) -> None:
    records = open_source(str(DEMO / "data" / "calib.jsonl"))
    samples = [build_sample(one, processor, with_answer=True) for one in records[:16]]
    for one, sample in zip(records, samples, strict=False):
        answer = sample.inputs["input_ids"][0, sample.prompt_tokens : -1]
        assert processor.tokenizer.decode(answer) == one.answer == sample.answer
        assert int(sample.inputs["mm_token_type_ids"].sum()) == image_tokens(256, 32)


def test_synthetic_pages_pass_the_demo_processor(processor: Any) -> None:
    samples = list(iter_samples(open_source("synthetic:5"), processor, with_answer=True))
    assert all(isinstance(sample, Sample) for sample in samples)
