"""Of every reader: the fast forward equals the model's own, the splits are apart, the training targets are right."""

from __future__ import annotations

import importlib.util
import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

HERE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HERE))

import lines  # noqa: E402
from batches import BatchMaker, Prompt, cut, rope_for  # noqa: E402
from evaluate import edit_distance, round_to_nearest  # noqa: E402
from fast_forward import decoder, logits, to_patches, vision  # noqa: E402
from make_data import write_data  # noqa: E402
from model import build_config, build_model, build_processor  # noqa: E402
from optim import orthogonalize  # noqa: E402
from PIL import Image  # noqa: E402
from readers import DEMO, QUESTION, READERS, Reader, place  # noqa: E402
from worker import TURNS  # noqa: E402

from hyocr_core.checkpoint.reader import digest  # noqa: E402
from hyocr_core.contract.backend import FORWARDS, Forward  # noqa: E402

READ = [pytest.param(reader, id=name) for name, reader in READERS.items()]
needs_fonts = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib has the fonts")


def _rows(split: str) -> list[dict[str, str]]:
    return [json.loads(row) for row in (HERE / "data" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def _inputs(processor: Any, picture: Image.Image, system: bool, question: str) -> Any:
    content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    head = [{"role": "system", "content": ""}] if system else []
    return processor.apply_chat_template(
        head + messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )


def test_checkpoints_are_those_that_the_readme_describes_and_small() -> None:
    files = sorted(HERE.glob("checkpoint*/model.safetensors"))
    described = (HERE / "README.md").read_text(encoding="utf-8")
    assert files
    assert [file.parent.name for file in files if digest(file) not in described] == []
    assert sum(file.stat().st_size for file in files) < 27e6


@needs_fonts
@pytest.mark.parametrize("forward", FORWARDS)
@pytest.mark.parametrize(("system", "question"), sorted(set(TURNS)))
@pytest.mark.parametrize("reader", READ)
def test_fast_forward_equals_the_models_own(reader: Reader, system: bool, question: str, forward: Forward) -> None:
    model, processor = build_model(reader, 3).eval(), build_processor(reader)
    pixels = lines.random_page(np.random.default_rng(0), reader, "heldout").pixels
    inputs = _inputs(processor, Image.fromarray(pixels), system, question)
    prompt = Prompt.build(processor.tokenizer, reader, question, system)
    assert inputs["input_ids"][0].tolist() == prompt.ids
    image = processor.image_processor
    norm = torch.tensor(image.image_mean), torch.tensor(image.image_std)
    patches = to_patches(torch.from_numpy(pixels)[None], *norm)
    assert torch.equal(patches[0], inputs["pixel_values"])
    params = dict(model.named_parameters())
    rope = cut(rope_for(model, reader, prompt, torch.float32, forward), len(prompt.ids))
    with torch.no_grad():
        features = vision(params, model.config, patches, reader.grid, forward)
        states = decoder(params, model.config, inputs["input_ids"], features, prompt.image_start, rope)
        torch.testing.assert_close(logits(params, states[-1]), model(**inputs).logits, atol=1e-5, rtol=1e-4)


@needs_fonts
@pytest.mark.parametrize("reader", READ)
def test_a_batch_depends_on_seed_step_and_worker_only(reader: Reader) -> None:
    tokenizer = build_processor(reader).tokenizer
    prompt = Prompt.build(tokenizer, reader, QUESTION, system=False)
    batch = BatchMaker(tokenizer, reader, 1, 0, 4).make(5, prompt)
    again = BatchMaker(tokenizer, reader, 1, 0, 4).make(5, prompt)
    other = BatchMaker(tokenizer, reader, 1, 1, 4).make(5, prompt)
    assert torch.equal(batch.pixels, again.pixels)
    assert torch.equal(batch.ids, again.ids)
    assert not torch.equal(batch.pixels, other.pixels)


@needs_fonts
def test_the_demos_data_are_those_that_are_committed(tmp_path: Path) -> None:
    # Every number that a page draws moves the texts after it; pixels and file bytes depend on versions, too.
    write_data(tmp_path, "demo", heldout=6, calib=4)
    for split, count in {"heldout": 6, "calib": 4}.items():
        rows = (tmp_path / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(row) for row in rows] == _rows(split)[:count]


@pytest.mark.parametrize("name", [name for name in READERS if place("checkpoint", name).exists()])
def test_a_checkpoint_has_the_described_shape(name: str) -> None:
    described = build_config(READERS[name]).to_dict()
    committed = json.loads((place("checkpoint", name) / "config.json").read_text(encoding="utf-8"))
    for part in ("text_config", "vision_config"):
        assert {key: described[part][key] for key in committed[part]} == committed[part]


@pytest.mark.parametrize("reader", READ)
def test_groups_of_128_divide_the_inputs_of_every_decoder_linear(reader: Reader) -> None:
    with torch.device("meta"):
        decoder = build_model(reader, 0).model.language_model.layers
    inputs = [module.in_features for module in decoder.modules() if isinstance(module, torch.nn.Linear)]
    assert all(width % 128 == 0 for width in inputs)
    assert sum(width >= 256 for width in inputs) > 0.5 * len(inputs)


def test_readers_differ_in_depth_width_alphabet_fonts_and_page() -> None:
    demo, deep, aside = (READERS[name] for name in ("demo", "deep", "aside"))
    assert deep.text["num_hidden_layers"] >= 12
    assert aside.lines > 1
    for first, second in ((demo, deep), (demo, aside), (deep, aside)):
        assert first.text["num_hidden_layers"] != second.text["num_hidden_layers"]
        assert (first.text["hidden_size"], first.text["intermediate_size"]) != (
            second.text["hidden_size"],
            second.text["intermediate_size"],
        )
        assert set(first.letters).isdisjoint(second.letters)
        assert set(first.fonts) != set(second.fonts)
        assert (first.width, first.height) != (second.width, second.height)


@needs_fonts
@pytest.mark.parametrize("reader", READ)
def test_no_line_is_in_two_splits_and_every_answer_can_be_written(reader: Reader) -> None:
    rng = np.random.default_rng(0)
    for split in ("heldout", "calib", "train"):
        for page in (lines.random_page(rng, reader, split) for _ in range(40)):
            assert {lines.split_of(line) for line in page.lines} == {split}
            assert page.text.count("\n") == reader.lines - 1
            assert set(page.text) <= set(reader.alphabet) | {"\n"}
            assert len(page.text.encode()) <= reader.max_tokens
    generation = json.loads((HERE / "checkpoint/generation_config.json").read_text(encoding="utf-8"))
    assert reader.max_tokens < generation["max_new_tokens"]


def test_no_evaluation_or_calibration_line_is_trained_on() -> None:
    texts = {split: {row["answer"] for row in _rows(split)} for split in ("heldout", "calib")}
    assert {len(texts["heldout"]), len(texts["calib"])} == {512, 128}
    for split, members in texts.items():
        assert {lines.split_of(text) for text in members} == {split}
        assert all(set(text) <= set(DEMO.alphabet) for text in members)


@needs_fonts
@pytest.mark.parametrize("reader", READ)
def test_targets_name_each_character_where_it_stands(reader: Reader) -> None:
    tokenizer = build_processor(reader).tokenizer
    prompt = Prompt.build(tokenizer, reader, QUESTION, system=True)
    batch = BatchMaker(tokenizer, reader, 1, 0, 3).make(0, prompt)
    end = reader.lines * reader.slots
    for answer, where, slots, counts in zip(batch.answers, batch.where, batch.slots, batch.counts, strict=True):
        text = tokenizer.decode(answer[answer != lines.IGNORE][:-1])
        owners = [*(char for char in text for _ in char.encode()), "\n"]
        for char, slot in zip(owners, where[: len(owners)].tolist(), strict=True):
            if char == "\n":
                assert slot == end
            else:
                assert slots[slot] in (1 + reader.alphabet.index(char), lines.IGNORE)
        ends = [len(f"{line}\n".encode()) for line in text.split("\n")]
        for row, column in product(range(reader.lines), range(reader.columns)):
            first = row * reader.slots
            left = int(((first <= where) & (where < first + column * reader.slots // reader.columns)).sum())
            assert counts[row * reader.columns + column] == sum(ends[:row]) + left


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
