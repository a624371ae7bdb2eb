from __future__ import annotations

import torch
from torch import nn

from hyocr_core.search.change import Change, watched


def test_a_change_is_the_difference_of_two_outputs() -> None:
    torch.manual_seed(0)
    before, after, inputs = torch.randn(3, 4), torch.randn(3, 4), torch.randn(1, 5, 4)
    moved = Change(after - before, after).of_output(inputs)
    assert torch.allclose(moved, inputs @ after.T - inputs @ before.T, atol=1e-5)
    seen = Change(after - before, after, torch.round).of_output(inputs)
    assert torch.allclose(seen, inputs.round() @ after.T - inputs @ before.T, atol=1e-5)


def test_inputs_and_outputs_of_linears_are_noted_only_inside() -> None:
    layer, inputs = nn.Linear(4, 3), torch.randn(1, 5, 4)
    with watched({"name": layer}) as found:
        output = layer(inputs)
    assert torch.equal(found["name"][0], inputs)
    assert found["name"][1] is output
    layer(inputs + 1)
    assert found["name"][1] is output
