"""Muon for the hidden matrices, Adam for the rest, with a state that is a plain mapping of tensors."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

_NS = (3.4445, -4.7750, 2.0315)  # quintic Newton-Schulz coefficients of Jordan et al., 2024


def orthogonalize(stack: Tensor, rounds: int = 5) -> Tensor:
    """Push the singular values of each matrix of the stack towards 1, in bf16."""
    a, b, c = _NS
    x = stack.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True) + 1e-7).bfloat16()
    for _ in range(rounds):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    result: Tensor = x.mT if tall else x
    return result.float()


def _is_hidden_matrix(name: str, tensor: Tensor) -> bool:
    return tensor.ndim >= 2 and ("layers." in name or "patch_merger" in name)


def fresh_state(params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Zero moments: one per hidden matrix (Muon), two per other parameter (Adam)."""
    state = {}
    for name, tensor in params.items():
        kinds = ("momentum",) if _is_hidden_matrix(name, tensor) else ("mean", "square")
        state.update({f"{kind}.{name}": torch.zeros_like(tensor) for kind in kinds})
    return state


class MuonAdam:
    """The optimizer of one worker: it updates every size-th parameter, in place."""

    def __init__(self, params: Mapping[str, Tensor], state: dict[str, Tensor], rank: int, size: int) -> None:
        self._params, self._state = params, state
        shapes: dict[tuple[int, ...], list[str]] = defaultdict(list)
        rest = []
        for name, tensor in params.items():
            if _is_hidden_matrix(name, tensor):
                shapes[tuple(tensor.flatten(1).shape)].append(name)
            else:
                rest.append(name)
        self._groups = {shape: names[rank::size] for shape, names in shapes.items()}
        self._rest = rest[rank::size]

    @property
    def owned(self) -> list[str]:
        """Names of the parameters that this worker updates."""
        return [name for names in self._groups.values() for name in names] + self._rest

    @torch.no_grad()
    def step(self, grads: Mapping[str, Tensor], step: int, muon_lr: float, adam_lr: float, decay: float) -> None:
        """Update the owned parameters."""
        for shape, names in self._groups.items():
            if names:
                self._muon(shape, names, grads, muon_lr, decay)
        self._adam(grads, step, adam_lr)

    def _muon(
        self, shape: tuple[int, ...], names: list[str], grads: Mapping[str, Tensor], rate: float, decay: float
    ) -> None:
        updates = []
        for name in names:
            momentum = self._state[f"momentum.{name}"]
            momentum.lerp_(grads[name], 0.05)
            updates.append(grads[name].lerp(momentum, 0.95).flatten(1))
        factor = rate * math.sqrt(max(1.0, shape[0] / shape[1]))
        for name, update in zip(names, orthogonalize(torch.stack(updates)), strict=True):
            tensor = self._params[name]
            tensor.mul_(1 - rate * decay).add_(update.view_as(tensor), alpha=-factor)

    def _adam(self, grads: Mapping[str, Tensor], step: int, rate: float, b1: float = 0.9, b2: float = 0.98) -> None:
        for name in self._rest:
            mean, square = self._state[f"mean.{name}"], self._state[f"square.{name}"]
            mean.lerp_(grads[name], 1 - b1)
            square.lerp_(grads[name].square(), 1 - b2)
            denominator = (square / (1 - b2 ** (step + 1))).sqrt_().add_(1e-8)
            self._params[name].addcdiv_(mean, denominator, value=-rate / (1 - b1 ** (step + 1)))
