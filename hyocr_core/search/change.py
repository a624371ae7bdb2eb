"""What a candidate makes of one linear, and how that moves the linear's output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import linear


@dataclass(frozen=True)
class Change:
    """difference: (N, K), what is added to the weight. dequantized: (N, K), the weight as it will be.

    seen: what the linear will see of its inputs; None where that is the inputs.
    """

    difference: Tensor
    dequantized: Tensor
    seen: Callable[[Tensor], Tensor] | None = None

    def of_output(self, inputs: Tensor) -> Tensor:
        """How the output, (1, tokens, N), moves for inputs (1, tokens, K).

        Computed from the differences, which bf16 holds as exactly as anything: that of two outputs would be noise.
        """
        moved = linear(inputs, self.difference)
        if self.seen is None:
            return moved
        shift = (self.seen(inputs).float() - inputs.float()).to(inputs.dtype)
        return moved + linear(shift, self.dequantized)


@contextmanager
def watched(layers: Mapping[str, nn.Linear]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Note the input and the output of each linear, by name, when its block runs."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            found[name] = (args[0].detach(), output)

        return hook

    handles = [layer.register_forward_hook(note(name)) for name, layer in layers.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
