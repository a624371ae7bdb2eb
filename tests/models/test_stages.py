"""A block walked group by group computes what the block does, bit for bit, and each linear once."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.contract.types import Batch
from hyocr_core.models.hunyuan_vl import Embedded, HunYuanVL
from hyocr_core.models.stages import StagedBlock, Standing
from hyocr_core.models.wiring import Place


def open_model(demo: Path) -> HunYuanVL:
    return HunYuanVL(CheckpointReader(demo), torch.device("cpu"))


def batch_of(model: HunYuanVL, place: Place) -> Batch:
    generator = torch.Generator().manual_seed(0)
    if place in model.decoder_blocks:
        axes = len(model.config.text_config.rope_parameters["mrope_section"])
        states = torch.randn(1, 19, model.config.text_config.hidden_size, generator=generator)
        return model.batch("page", Embedded(states.to(model.dtype), torch.arange(19).expand(axes, 1, 19)))
    states = torch.randn(1, 32, model.config.vision_config.hidden_size, generator=generator)
    return model.vision_batch("page", Embedded(states.to(model.dtype), torch.tensor([[1, 4, 8]])))


@pytest.mark.parametrize("place", ["block-00001", "vision-00000", "merger"])
@torch.no_grad()
def test_stages_make_the_block(demo: Path, place: str) -> None:
    model = open_model(demo)
    found = {each.key: each for each in (*model.decoder_blocks, *model.vision_blocks)}
    found["merger"] = model.vision_blocks[-1]
    where = found[place]
    calls: Counter[str] = Counter()
    with model.block(where, 0, model.linears) as block:
        batch = batch_of(model, where)
        due = block.run(batch)
        for name, linear in block.layers.items():
            linear.register_forward_hook(lambda *_, name=name: calls.update([name]))
        staged, standing = StagedBlock(block.module, where), Standing()
        done: list[str] = []
        for group in where.wiring.groups:
            standing = staged.go_on(batch, standing, done, group[0])
            expected = _input_of(block.module.get_submodule(group[0]), block, batch)
            assert standing.inputs is not None
            assert torch.equal(standing.inputs, expected)
            done = list(group)
        calls.clear()
        standing, done = Standing(), []
        for group in where.wiring.groups:
            standing, done = staged.go_on(batch, standing, done, group[0]), list(group)
        assert torch.equal(staged.finish(batch, standing, done), due)
        assert all("forward" not in vars(module) for module in block.module.modules()), "modules compute again"
    assert set(calls) == set(block.layers)
    assert set(calls.values()) == {1}, "every linear runs once for a sample"


def _input_of(linear: torch.nn.Module, block: Any, batch: Batch) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = linear.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    block.run(batch)
    handle.remove()
    return seen[0]


@torch.no_grad()
def test_a_group_sees_what_changed_linears_before_it_make(demo: Path) -> None:
    """And the group that changed is read from memory by none behind it."""
    model = open_model(demo)
    place = model.decoder_blocks[0]
    with model.block(place, 0, model.linears) as block:
        batch, staged = batch_of(model, place), StagedBlock(block.module, place)
        groups = place.wiring.groups
        standing = staged.go_on(batch, Standing(), [], groups[0][0])
        for group, following in itertools.pairwise(groups):
            for path in group:
                block.module.get_submodule(path).get_parameter("weight").data.mul_(1.25)
            standing = staged.go_on(batch, standing, group, following[0])
        assert standing.inputs is not None
        down = block.module.get_submodule(groups[-1][0])
        assert torch.equal(standing.inputs, _input_of(down, block, batch))
        down.get_parameter("weight").data.mul_(0.5)
        assert torch.equal(staged.finish(batch, standing, groups[-1]), block.run(batch))
