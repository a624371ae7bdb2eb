from __future__ import annotations

import math

import pytest
import torch

from hyocr_core.evaluation.scores.divergence import divergence, divergence_of_states


def hand_kl(baseline: list[float], model: list[float]) -> float:
    """KL of two softmaxes with Python's floats."""
    p = [math.exp(value) / sum(map(math.exp, baseline)) for value in baseline]
    q = [math.exp(value) / sum(map(math.exp, model)) for value in model]
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_divergence_by_hand() -> None:
    baseline = [[2.0, 1.0, 0.0], [0.0, 0.5, -3.0]]
    model = [[2.5, 1.0, -1.0], [1.0, 0.5, -3.0]]
    result = divergence(torch.tensor(baseline), torch.tensor(model))
    assert result.agrees.tolist() == [True, False]
    assert result.kl.tolist() == pytest.approx([hand_kl(*pair) for pair in zip(baseline, model, strict=True)], rel=1e-5)
    assert result.kl[0] > 0.01


def test_divergence_is_not_symmetric_and_baseline_comes_first() -> None:
    sharp, flat = [8.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    assert float(divergence(torch.tensor([sharp]), torch.tensor([flat])).kl) == pytest.approx(hand_kl(sharp, flat))
    assert float(divergence(torch.tensor([flat]), torch.tensor([sharp])).kl) == pytest.approx(hand_kl(flat, sharp))
    assert abs(hand_kl(sharp, flat) - hand_kl(flat, sharp)) > 1


def test_divergence_is_computed_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    baseline = torch.randn(4, 1000, generator=generator).to(torch.bfloat16)
    model = (baseline.float() + 0.05 * torch.randn(4, 1000, generator=generator)).to(torch.bfloat16)
    expected = [hand_kl(*pair) for pair in zip(baseline.tolist(), model.tolist(), strict=True)]
    assert divergence(baseline, model).kl.tolist() == pytest.approx(expected, rel=1e-3)


def test_states_in_parts_give_what_they_give_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 11, 5, generator=generator)
    states = torch.randn(2, 7, 5, generator=generator)
    expected = divergence(states[0] @ weights[0].T, states[1] @ weights[1].T)
    monkeypatch.setattr("hyocr_core.evaluation.scores.divergence._CHUNK", 33)  # three positions at a time
    seen: list[int] = []

    def head(part: torch.Tensor) -> torch.Tensor:
        seen.append(len(part))
        return part @ weights[0].T

    result = divergence_of_states(states[0], states[1], (head, lambda part: part @ weights[1].T))
    torch.testing.assert_close(result.kl, expected.kl)
    assert result.agrees.tolist() == expected.agrees.tolist()
    assert max(seen) == 3
