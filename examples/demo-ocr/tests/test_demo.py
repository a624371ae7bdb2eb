"""The fast forward equals the model's own, the splits are apart, the training targets and measures are right."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

DEMO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(DEMO))

import lines  # noqa: E402
from batches import BatchMaker, Prompt, cut, rope_for  # noqa: E402
from evaluate import edit_distance, round_to_nearest  # noqa: E402
from fast_forward import decoder, logits, to_patches, vision  # noqa: E402
from model import build_model, build_processor  # noqa: E402
from optim import orthogonalize  # noqa: E402
from PIL import Image  # noqa: E402
from worker import TURNS  # noqa: E402

from hyocr_core.contract.backend import FORWARDS, Forward  # noqa: E402

needs_fonts = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib has the fonts")


def _rows(split: str) -> list[dict[str, str]]:
    return [json.loads(row) for row in (DEMO / "data" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def _inputs(processor: Any, picture: Image.Image, system: bool, question: str) -> Any:
    content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    head = [{"role": "system", "content": ""}] if system else []
    return processor.apply_chat_template(
        head + messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )


@pytest.mark.parametrize("forward", FORWARDS)
@pytest.mark.parametrize(("system", "question"), sorted(set(TURNS)))
def test_fast_forward_equals_the_models_own(system: bool, question: str, forward: Forward) -> None:
    model, processor = build_model(3).eval(), build_processor()
    with Image.open(DEMO / "data" / _rows("heldout")[0]["img_path"]) as opened:
        picture = opened.convert("L")
    inputs = _inputs(processor, picture, system, question)
    prompt = Prompt.build(processor.tokenizer, question, system)
    assert inputs["input_ids"][0].tolist() == prompt.ids
    image = processor.image_processor
    pixels = torch.from_numpy(np.array(picture))[None]
    patches = to_patches(pixels, torch.tensor(image.image_mean), torch.tensor(image.image_std))
    assert torch.equal(patches[0], inputs["pixel_values"])
    params = dict(model.named_parameters())
    rope = cut(rope_for(model, prompt, torch.float32, forward), len(prompt.ids))
    with torch.no_grad():
        features = vision(params, model.config, patches, forward)
        states = decoder(params, model.config, inputs["input_ids"], features, prompt.image_start, rope)
        torch.testing.assert_close(logits(params, states[-1]), model(**inputs).logits, atol=1e-5, rtol=1e-4)


@needs_fonts
def test_a_batch_depends_on_seed_step_and_worker_only() -> None:
    tokenizer = build_processor().tokenizer
    prompt = Prompt.build(tokenizer, lines.QUESTION, system=False)
    batch = BatchMaker(tokenizer, 1, 0, 4).make(5, prompt)
    again = BatchMaker(tokenizer, 1, 0, 4).make(5, prompt)
    other = BatchMaker(tokenizer, 1, 1, 4).make(5, prompt)
    assert torch.equal(batch.pixels, again.pixels)
    assert torch.equal(batch.ids, again.ids)
    assert not torch.equal(batch.pixels, other.pixels)


def test_no_evaluation_or_calibration_line_is_trained_on() -> None:
    texts = {split: {row["answer"] for row in _rows(split)} for split in ("heldout", "calib")}
    assert {len(texts["heldout"]), len(texts["calib"])} == {512, 128}
    for split, members in texts.items():
        assert {lines.split_of(text) for text in members} == {split}
        assert all(set(text) <= set(lines.ALPHABET) for text in members)


@needs_fonts
def test_slot_labels_name_the_character_over_each_slot() -> None:
    line = lines.random_line(np.random.default_rng(0), "train")
    labels = lines.slot_labels(line)
    seen = "".join(lines.ALPHABET[label - 1] for label in labels if label > 0)
    assert seen == line.text


def test_orthogonalize_brings_singular_values_near_one() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(2, 64, 128, generator=generator)))
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.5


def test_round_to_nearest_uses_sixteen_levels_per_group() -> None:
    rounded = round_to_nearest(torch.randn(4, 256, generator=torch.Generator().manual_seed(0)))
    assert max(len(group.unique()) for group in rounded.view(-1, 128)) <= 16


def test_edit_distance() -> None:
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "abc") == 3
