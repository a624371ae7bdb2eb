"""Weights of one byte that a scale multiplies, and what formats of such weights share: their inputs have a byte too.

Imports torch only when it computes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hyocr_core.formats.base import Format, TensorLayout
from hyocr_core.formats.levels import Levels
from hyocr_core.formats.settings_read import mapping, one_of
from hyocr_core.wording import listed, phrase, tr

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Activations = Literal["static", "dynamic"]
Weights = Literal["tensor", "channel"]
_ACTIVATIONS: Mapping[Activations, str] = {
    "static": phrase("static activations"),
    "dynamic": phrase("dynamic activations"),
}

SCALE_DTYPES = ("bfloat16", "float32", "float16")


@dataclass(frozen=True)
class ScaledWeight:
    """codes: (N, K) float8_e4m3fn or int8. scale: () for the whole weight, or (N, 1).

    input_scale: () of static activations. A weight is codes * scale; scales are in the dtype in which they are stored.
    """

    codes: Tensor
    scale: Tensor
    input_scale: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Copies under the names all formats use: weight, weight_scale and, for static activations, input_scale.

        A lone scale gets the shape (1,): Transformers refuses (), vLLM takes either.
        """
        named = {"weight": self.codes, "weight_scale": self.scale}
        if self.input_scale is not None:
            named["input_scale"] = self.input_scale
        return {name: (tensor if tensor.ndim else tensor.reshape(1)).clone() for name, tensor in named.items()}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> ScaledWeight:
        """Invert `tensors`; a lone scale may have the shape (), as others write it."""
        input_scale = tensors.get("input_scale")
        return cls(
            tensors["weight"], _scalar(tensors["weight_scale"]), None if input_scale is None else _scalar(input_scale)
        )

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """codes * scale, computed in fp32 and rounded once to `dtype`."""
        return (self.codes.float() * self.scale.float()).to(dtype)


class ScaledFormat(Format):
    """activations: static, one scale for all inputs; dynamic, one for each token, found at run time.

    kind: what such a number is called. codes_dtype: torch's name of it. largest_code: what a scale maps the largest
    value to.
    """

    codes: ClassVar[str] = "weight"
    kind: ClassVar[str]
    codes_dtype: ClassVar[str]
    largest_code: ClassVar[float]

    activations: Activations

    @property
    @abstractmethod
    def per_channel(self) -> bool:
        """Whether each output has a scale of its own; all share one otherwise."""

    @abstractmethod
    def spacing(self, codes: Tensor) -> Tensor:
        """How far the nearest other code is from each of `codes`, fp32, in units of the scale."""

    @abstractmethod
    def encode(self, values: Tensor) -> Tensor:
        """Return the nearest codes of fp32 values that were divided by their scales; may write into them."""

    @property
    def in_words(self) -> str:
        """Kind, scales and activations."""
        scales = tr("scale per output channel") if self.per_channel else tr("one scale")
        return listed([self.kind, scales, tr(_ACTIVATIONS[self.activations])])

    def layout(self, shape: tuple[int, int]) -> dict[str, TensorLayout]:
        """Local name -> layout of every tensor of a linear of `shape` (N, K)."""
        tensors = {
            "weight": TensorLayout(shape, (self.codes_dtype,)),
            "weight_scale": TensorLayout((shape[0], 1) if self.per_channel else (), SCALE_DTYPES),
        }
        if self.activations == "static":
            tensors["input_scale"] = TensorLayout((), SCALE_DTYPES)
        return tensors

    def linear_shape(self, codes: tuple[int, ...]) -> tuple[int, int]:
        """The (N, K) of a linear whose weight has this shape."""
        return codes[0], codes[1]

    def decode(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """Return the weight (N, K), rounded once."""
        return ScaledWeight.of(tensors).dequantized(dtype)

    def levels(self, tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Levels | None:  # noqa: ARG002
        """A step is the larger of the code's, and that of the root mean square of its output's, times the scale."""
        import torch

        stored = ScaledWeight.of(tensors)
        codes = stored.codes.float()
        usual = codes.square().mean(1, keepdim=True).sqrt()
        steps = torch.maximum(self.spacing(codes), self.spacing(usual)) * stored.scale.float()
        return Levels(steps, codes <= -self.largest_code, codes >= self.largest_code)

    def groups(self, shape: tuple[int, int]) -> int:  # noqa: ARG002
        """One."""
        return 1

    @property
    def quantizes_inputs(self) -> bool:
        """Runtimes multiply byte by byte."""
        return True

    def nearest(self, weight: Tensor, sharing: Iterable[Tensor] = ()) -> Tensor:
        """Return `weight` (N, K) rounded to nearest, in its own dtype."""
        import torch

        if self.per_channel:
            largest = weight.abs().amax(1, keepdim=True)
        else:
            largest = torch.stack([each.abs().max() for each in (weight, *sharing)]).max()
        smallest = torch.finfo(weight.dtype).smallest_normal
        scale = (largest.float() / self.largest_code).to(weight.dtype).clamp(min=smallest)
        return ScaledWeight(self.encode(weight.float() / scale.float()), scale).dequantized(weight.dtype)

    @property
    def shared(self) -> tuple[str, ...]:
        """The scale of the inputs, and of the weight where that is one for all."""
        inputs = ("input_scale",) if self.activations == "static" else ()
        return ("weight_scale", *inputs) if self.shares_scale else inputs

    def value_problems(self, tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Iterator[tuple[str, str]]:  # noqa: ARG002
        """Scales are all there is to be wrong, and every format has those."""
        yield from ()


def read_activations(group: Mapping[str, Any], kind: str, dynamic: tuple[str, ...]) -> tuple[Weights, Activations]:
    """Read what a config group says of 8-bit weights and inputs of this kind.

    dynamic: the strategies that are read where the scales of inputs are found at run time.
    """
    weights, inputs = mapping(group, "weights"), mapping(group, "input_activations")
    for part in (weights, inputs):
        one_of(part, "num_bits", (8,))
        one_of(part, "type", (kind,))
        one_of(part, "symmetric", (True,), default=True)
    found = one_of(inputs, "dynamic", (True, False), default=False)
    one_of(inputs, "strategy", dynamic if found else ("tensor",))
    return one_of(weights, "strategy", ("tensor", "channel")), "dynamic" if found else "static"


def write_activations(kind: str, weights: Weights, activations: Activations) -> dict[str, Any]:
    """Invert `read_activations`."""
    eight = {"num_bits": 8, "type": kind, "symmetric": True}
    dynamic = activations == "dynamic"
    return {
        "weights": eight | {"dynamic": False, "strategy": weights},
        "input_activations": eight | {"dynamic": dynamic, "strategy": "token" if dynamic else "tensor"},
        "output_activations": None,
    }


def _scalar(scale: Tensor) -> Tensor:
    return scale.reshape(()) if scale.shape == (1,) else scale
