"""`prepare` and `original_basis`: what they may return."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar

import pytest
import torch
from torch import Tensor

from hyocr_core.contract.types import Block, LayerSpec, Prepared
from hyocr_core.errors import HookError
from hyocr_core.plugin.registry import Method
from tests.plugin.odd import NAME, NoBatches, odd, toy

if TYPE_CHECKING:
    from tests.conftest import PluginFolder


BACK = LayerSpec(NAME, (2, 3), torch.float32)


def test_a_weight_is_turned_back_by_the_hook_alone(plugins: PluginFolder) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    assert toy(plugins).original_basis(BACK, weight, toy(plugins).config({})) is weight
    method = odd(plugins, "@hookimpl\ndef original_basis(weight): return weight.flip(1)\n")
    assert torch.equal(method.original_basis(BACK, weight, method.config({})), weight.flip(1))


def test_a_weight_that_is_turned_back_keeps_its_shape(plugins: PluginFolder) -> None:
    method = odd(plugins, "@hookimpl\ndef original_basis(weight): return weight.T\n")
    with pytest.raises(HookError, match=r"hook original_basis, .*: returned a weight of shape \[3, 2\], the layer has"):
        method.original_basis(BACK, torch.ones(2, 3), method.config({}))


class NoModel:
    """What `prepare` sees of a model of one tensor."""

    layers: ClassVar[dict[str, LayerSpec]] = {}
    tensors: ClassVar[dict[str, tuple[tuple[int, ...], torch.dtype]]] = {"norm.weight": ((2,), torch.bfloat16)}

    def read(self, *names: str) -> dict[str, Tensor]:
        return {name: torch.ones(2).bfloat16() for name in names}

    def blocks(self) -> Iterator[AbstractContextManager[Block]]:
        return iter(())


PREPARE = "@hookimpl\ndef prepare(model, batches, config, seed):\n    {}\n"


def prepare(method: Method, seed: int = 0) -> Prepared:
    return method.prepare(NoModel(), NoBatches(), method.config({}), seed)


@pytest.mark.parametrize("body", ["return None", "return Prepared()"])
def test_a_method_need_not_prepare_anything(plugins: PluginFolder, body: str) -> None:
    assert prepare(odd(plugins, PREPARE.format(body))) == prepare(toy(plugins)) == Prepared()


def test_what_is_prepared_is_what_the_hook_decides(plugins: PluginFolder) -> None:
    body = (
        "return Prepared({'*.q_proj': {'clip': 0.5}}, "
        "{name: tensor + seed for name, tensor in model.read('norm.weight').items()}, {'rotated': True})"
    )
    found = prepare(odd(plugins, PREPARE.format(body)), seed=2)
    assert found.overrides == {"*.q_proj": {"clip": 0.5}}
    assert found.tensors["norm.weight"].tolist() == [3, 3]
    assert found.config == {"rotated": True}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("{}", "must return Prepared or None, not a value of type dict"),
        ("Prepared(tensors={'a': 1})", "must return a dict of tensors, but 'a' is a value of type int"),
        (
            "Prepared(tensors={'a': torch.ones(2)})",
            "replaces 'a', which is no tensor of the checkpoint",
        ),
        (
            "Prepared(tensors={'norm.weight': torch.ones(2)})",
            "replaces norm.weight by torch.float32 (2,), it is torch.bfloat16 (2,)",
        ),
        (
            "Prepared(tensors={'norm.weight': torch.ones(3).bfloat16()})",
            "replaces norm.weight by torch.bfloat16 (3,), it is torch.bfloat16 (2,)",
        ),
        ("Prepared(config={'a': {1}})", "returned what JSON cannot hold: Object of type set is not JSON serializable"),
        (
            "Prepared({'*': {'clip': float('nan')}})",
            "returned what JSON cannot hold: Out of range float values are not JSON compliant",
        ),
    ],
)
def test_preparing_that_breaks_the_contract(plugins: PluginFolder, value: str, problem: str) -> None:
    method = odd(plugins, PREPARE.format(f"return {value}"))
    with pytest.raises(HookError) as caught:
        prepare(method)
    assert str(caught.value).startswith(f"method odd (hyocr-plugin-odd 0.0.1), hook prepare: {problem}")
