from __future__ import annotations

from itertools import product

import torch

from hyocr_core.search.fisher import drawn_gradients, fisher_draw


def test_draws_have_the_fisher_information_of_the_prediction() -> None:
    logits = torch.tensor([[0.3, -1.0, 2.0, 0.5, -4.0]])
    signs = torch.tensor(list(product((-1.0, 1.0), repeat=5)))
    draws = fisher_draw(logits.expand(len(signs), -1), signs)
    prediction = torch.softmax(logits[0], -1)
    # Over all signs the mean is exact.
    assert torch.allclose(draws.T @ draws / len(signs), prediction.diag() - prediction.outer(prediction), atol=1e-6)


def test_a_draw_foretells_the_divergence_of_a_small_change() -> None:
    torch.manual_seed(0)
    logits, change = torch.randn(1, 7), 0.01 * torch.randn(1, 7)
    signs = torch.tensor(list(product((-1.0, 1.0), repeat=7)))
    draws = fisher_draw(logits.expand(len(signs), -1), signs)
    before, after = torch.log_softmax(logits.double(), -1), torch.log_softmax((logits + change).double(), -1)
    kl = float((before.exp() * (before - after)).sum())
    assert abs(float((draws @ change[0]).square().mean() / 2) / kl - 1) < 0.03


def test_only_rows_that_predict_have_a_gradient_and_the_seed_decides() -> None:
    torch.manual_seed(0)
    states, head = torch.randn(1, 6, 4), torch.randn(9, 4)
    rows = torch.tensor([2, 3, 5])
    found = drawn_gradients(states, rows, lambda some: some @ head.T, 3, seed=1)
    assert found.shape == (3, 6, 4)
    assert found[:, [0, 1, 4]].count_nonzero() == 0
    assert bool((found[:, rows].abs().sum(-1) > 0).all())
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found, drawn_gradients(states, rows, lambda some: some @ head.T, 3, seed=1))
