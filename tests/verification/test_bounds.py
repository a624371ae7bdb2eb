"""What is called a fault beside the original, from both sides of each bound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hyocr_core.formats import CompressedFp8Format, Format, GptqFormat, IntQuantizedFormat, PackQuantizedFormat
from hyocr_core.verification.verify import verify

if TYPE_CHECKING:
    from tests.verification.conftest import Copy, Tensors, Write

LAYER = "model.layers.2.self_attn.o_proj"
FOUR, EIGHT = PackQuantizedFormat(4, 128, sym=True), PackQuantizedFormat(8, 128, sym=True)
FORMATS: dict[str, Format] = {
    "gptq-8": GptqFormat(8, 128, sym=True),
    "packed-8": EIGHT,
    "fp8": CompressedFp8Format("channel", "dynamic"),
    "int8": IntQuantizedFormat("channel", "dynamic"),
}


def noisy(weight: Tensor, decibels: float) -> Tensor:
    """The weight with evenly spread noise of this signal-to-noise ratio, which changes no group's size."""
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    noise *= weight.float().norm() / noise.norm() * 10 ** (-decibels / 20)
    return (weight.float() + noise).bfloat16()


def change_of(decibels: float) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[f"{LAYER}.weight"] = noisy(tensors[f"{LAYER}.weight"], decibels)

    change.__name__ = f"noise_of_{decibels:g}"
    return change


def found(folder: Path, demo: Path) -> list[str]:
    return [f"{fault.place}: {fault.problem}" for fault in verify(folder, original=str(demo)).faults]


@pytest.mark.parametrize("name", FORMATS)
def test_8_bits_with_the_error_of_4_are_a_fault(name: str, write: Write, demo: Path) -> None:
    (fault,) = found(write(FORMATS[name], change_of(15)), demo)
    assert fault.startswith(f"{LAYER}: is not the original's weight: ")
    assert fault.endswith(f" dB, at least {20 if name == 'fp8' else 26} is due")


def test_4_bits_with_that_error_are_none(write: Write, demo: Path) -> None:
    assert found(write(FOUR, change_of(15)), demo) == []
    (fault,) = found(write(FOUR, change_of(5)), demo)
    assert "at least 7 is due" in fault


@pytest.mark.parametrize(
    ("written", "factor", "sound"),
    [
        (FOUR, 0.5, False),
        (FOUR, 0.65, True),
        (FOUR, 1.45, True),
        (FOUR, 1.7, False),
        (EIGHT, 0.8, False),
        (EIGHT, 0.98, True),
        (EIGHT, 1.02, True),
        (EIGHT, 1.25, False),
    ],
)
def test_a_group_may_grow_and_shrink_so_much(
    written: PackQuantizedFormat, factor: float, sound: bool, write: Write, copy: Copy, demo: Path
) -> None:
    def scale(tensors: Tensors) -> None:
        tensors[f"{LAYER}.weight_scale"][3, 1] *= factor

    faults = found(copy(write(written), scale), demo)
    assert len(faults) == (0 if sound else 1)
    for fault in faults:
        assert fault.startswith(f"{LAYER}: group 1 of output 3 is {factor:.1f}"[:-2])
        assert fault.endswith("times the original's: its scale or its codes are wrong")


def test_small_outputs_of_one_scale_may_vanish(write: Write, demo: Path) -> None:
    """Integers with one scale for a whole weight have no step small enough for them."""

    def shrink(tensors: Tensors) -> None:
        tensors[f"{LAYER}.weight"][5] *= 1e-4

    folder = write(IntQuantizedFormat("tensor", "dynamic"), shrink)
    tensors = load_file(folder / "model.safetensors")
    assert not tensors[f"{LAYER}.weight"][5].any()
    assert found(folder, demo) == []
