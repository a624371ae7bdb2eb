"""The adapter against Transformers' own model: same names, same numbers, one part in memory at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import HunYuanVLForConditionalGeneration

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.contract.backend import FORWARDS, Forward
from hyocr_core.errors import CheckpointError
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.load import load_model
from hyocr_core.pages.processor import load_processor
from hyocr_core.runtimes.forward import set_forward

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=FORWARDS)
def forward(request: pytest.FixtureRequest) -> Forward:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def theirs(demo: Path, forward: Forward) -> HunYuanVLForConditionalGeneration:
    model: Any = HunYuanVLForConditionalGeneration.from_pretrained(
        demo, dtype=torch.bfloat16, attn_implementation="sdpa"
    )
    model.eval()
    set_forward(model, forward)
    return model  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def inputs(demo: Path) -> dict[str, Tensor]:
    image = Image.new("RGB", (256, 32), "white")
    content = [{"type": "image", "image": image}, {"type": "text", "text": "Extract the text in the image."}]
    batch = load_processor(demo).apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    return dict(batch)


def test_blocks_one_by_one_give_the_hidden_states_of_the_whole_model(
    demo: Path, theirs: HunYuanVLForConditionalGeneration, forward: Forward, inputs: dict[str, Tensor]
) -> None:
    model = HunYuanVL(CheckpointReader(demo), CPU, forward)
    # The model's forward wraps what it records before the final norm; hooks see each block's own output.
    expected: list[Tensor] = []
    layers = theirs.model.language_model.layers
    hooks = [layer.register_forward_hook(lambda _m, _a, output: expected.append(output)) for layer in layers]
    with torch.no_grad():
        theirs(**inputs)
    for hook in hooks:
        hook.remove()
    with model.front():
        embedded = model.embed(inputs)
    hidden_states = embedded.hidden_states
    for index, place in enumerate(model.decoder_blocks):
        with model.block(place, index, model.linears) as block, torch.no_grad():
            hidden_states = block.run(model.batch("x", type(embedded)(hidden_states, embedded.places)))
        assert torch.equal(hidden_states, expected[index])


def test_only_the_part_at_work_is_in_memory(demo: Path) -> None:
    model = HunYuanVL(CheckpointReader(demo), CPU)

    def resident() -> set[str]:
        return {name for name, value in model.skeleton.named_parameters() if not value.is_meta}

    assert resident() == set()
    with model.block(model.decoder_blocks[1], 1, model.linears):
        assert {name.split(".")[3] for name in resident()} == {"1"}
    with model.front():
        assert not any("language_model.layers" in name for name in resident())
    assert resident() == set()


def test_linears_and_their_names_are_those_of_transformers(
    demo: Path, theirs: HunYuanVLForConditionalGeneration
) -> None:
    model = HunYuanVL(CheckpointReader(demo), CPU)
    expected = {name for name, module in theirs.named_modules() if isinstance(module, nn.Linear)}
    assert set(model.memory_names.values()) == expected
    stored = CheckpointReader(demo).tensors
    assert all(f"{name}.weight" in stored for name in model.memory_names if name != "lm_head")
    assert model.memory_names["vit.layers.0.mlp.dense_h_to_4h"] == "model.vision_tower.layers.0.mlp.fc1"
    assert model.memory_names["model.layers.3.mlp.up_proj"] == "model.language_model.layers.3.mlp.up_proj"


def test_block_offers_only_the_layers_to_quantize(demo: Path) -> None:
    model = HunYuanVL(CheckpointReader(demo), CPU)
    wanted = [name for name in model.linears if not name.endswith("o_proj")]
    with model.block(model.decoder_blocks[2], 2, wanted) as block:
        assert block.name == "model.layers.2"
        assert [len(group) for group in block.groups] == [3, 2, 1]
        assert [name for group in block.groups for name in group] == list(block.layers)
        assert block.layers["model.layers.2.mlp.up_proj"] is block.module.get_submodule("mlp.up_proj")


def test_whole_model_equals_transformers(
    demo: Path, theirs: HunYuanVLForConditionalGeneration, forward: Forward, inputs: dict[str, Tensor]
) -> None:
    model = load_model(demo, CPU, forward)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, theirs(**inputs).logits)
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight


def drop(tensors: dict[str, Tensor]) -> None:
    del tensors["model.layers.1.mlp.up_proj.weight"]


def add(tensors: dict[str, Tensor]) -> None:
    tensors["model.layers.9.mlp.up_proj.weight"] = torch.zeros(2, 2)


def reshape(tensors: dict[str, Tensor]) -> None:
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 5)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (drop, "1 tensors are missing, the first is model.layers.1.mlp.up_proj.weight"),
        (add, r"model.layers.9.mlp.up_proj.weight is no tensor of HunYuanVLForConditionalGeneration"),
        (reshape, r"model.layers.1.mlp.up_proj.weight has shape \[3, 5\], config.json asks for"),
    ],
)
def test_tensors_that_do_not_fit_the_architecture_are_refused(
    edit: Any, message: str, edited_demo: Callable[[Any], Path]
) -> None:
    with pytest.raises(CheckpointError, match=message):
        HunYuanVL(CheckpointReader(edited_demo(edit)), CPU)


def test_another_architecture_is_refused(demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(demo, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="LlamaForCausalLM is not HunYuanVLForConditionalGeneration"):
        HunYuanVL(CheckpointReader(folder), CPU)


def test_the_old_flat_config_gives_the_same_model(demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    shutil.copytree(demo, folder)
    config = json.loads((folder / "config.json").read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    scaling = {"type": "xdrope", "alpha": rope["alpha"], "factor": 1.0, "xdrope_section": rope["mrope_section"]}
    flat = text | config | {"model_type": "hunyuan_vl", "rope_theta": rope["rope_theta"], "rope_scaling": scaling}
    (folder / "config.json").write_text(json.dumps(flat))
    old, new = (HunYuanVL(CheckpointReader(path), CPU) for path in (folder, demo))
    assert old.linears == new.linears
    assert torch.equal(old._rotary.inv_freq, new._rotary.inv_freq)
