"""FP8 weights (E4M3): formats `fp8` and `compressed-tensors` (float-quantized). Imports torch only when it computes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from hyocr_core.contract.types import QuantizedNames
from hyocr_core.formats.base import Format
from hyocr_core.formats.bounds import THREE_BITS_OF_MANTISSA, Bound
from hyocr_core.formats.compressed import UNPACKED, CompressedFormat
from hyocr_core.formats.ignored import Ignored
from hyocr_core.formats.runtimes import TRANSFORMERS, VLLM_CPU, VLLM_CUDA, Runtime, answer, in_vision
from hyocr_core.formats.scaled import Activations, ScaledFormat, Weights, read_activations, write_activations
from hyocr_core.formats.settings_read import name_list, one_of
from hyocr_core.wording import phrase

if TYPE_CHECKING:
    from torch import Tensor

BF16_SCALES = phrase("needs the package compressed-tensors, and scales stored in bfloat16")
ONE_SCALE = phrase("its CPU build lacks static_scaled_fp8_quant, which one scale per weight needs")


class _Fp8(ScaledFormat):
    """What both formats share."""

    kind: ClassVar[str] = "fp8"
    codes_dtype: ClassVar[str] = "float8_e4m3fn"
    largest_code: ClassVar[float] = 448.0

    def spacing(self, codes: Tensor) -> Tensor:
        """By three bits of mantissa, at least 2^-9; below a power of two the values lie twice as close as above."""
        import torch

        mantissa, exponent = torch.frexp(codes.abs().clamp(min=2.0**-9))
        return torch.ldexp(torch.ones_like(codes), (exponent - 4 - (mantissa == 0.5).int()).clamp_(min=-9))

    def encode(self, values: Tensor) -> Tensor:
        """Return the nearest codes; the largest values are cut off."""
        import torch

        return values.clamp_(-self.largest_code, self.largest_code).to(torch.float8_e4m3fn)

    def quantize_inputs(self, inputs: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return inputs (..., K) rounded to E4M3 with the static scale, or with one for each token."""
        from hyocr_core.kit import e4m3

        return e4m3.quantize_inputs(inputs, tensors["input_scale"] if self.activations == "static" else None)

    @property
    def bound(self) -> Bound:
        """By the mantissa: codes that make up for each other are further off than the nearest."""
        return THREE_BITS_OF_MANTISSA

    @property
    def shares_scale(self) -> bool:
        """vLLM would take the largest for all."""
        return not self.per_channel


@dataclass(frozen=True)
class Fp8Format(_Fp8):
    """Format `fp8`: one scale per weight."""

    api_version: ClassVar[int] = 1

    activations: Activations

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Return the format that a quantization_config describes."""
        one_of(config, "weight_block_size", (None,), default=None)
        return cls(one_of(config, "activation_scheme", ("static", "dynamic")))

    @classmethod
    def ignored(cls, config: Mapping[str, Any]) -> Ignored:
        """`ignored_layers`; vLLM takes `modules_to_not_convert` too, the first when it has entries."""
        key = "ignored_layers" if config.get("ignored_layers") else "modules_to_not_convert"
        return Ignored("ignored_layers", name_list(config, key) or (), "exact")

    @classmethod
    def usual(cls) -> Mapping[str, Format]:
        """With static activations."""
        return {"fp8": cls("static")}

    @property
    def per_channel(self) -> bool:
        """Never."""
        return False

    def quantization_config(self, names: QuantizedNames) -> dict[str, Any]:
        """Return what config.json says; it names every unquantized linear."""
        return {
            "quant_method": "fp8",
            "activation_scheme": self.activations,
            "ignored_layers": list(names.ignored),
        }

    def runtimes(self, shapes: Mapping[str, tuple[int, int]]) -> Iterable[Runtime]:  # noqa: ARG002
        """Say of each runtime whether it loads it."""
        refusal = phrase("its fp8 has no static scales and none per weight")
        return Runtime(VLLM_CPU, "no", ONE_SCALE), Runtime(VLLM_CUDA, "yes"), Runtime(TRANSFORMERS, "no", refusal)

    @property
    def packages(self) -> tuple[str, ...]:
        """What Transformers asks for before it refuses."""
        return ("accelerate",)

    def must_unpack(self, shapes: Mapping[str, tuple[int, int]]) -> bool:  # noqa: ARG002
        """Transformers has no way to."""
        return False


@dataclass(frozen=True)
class CompressedFp8Format(_Fp8, CompressedFormat):
    """Format `compressed-tensors` with FP8 weights: one scale per weight (`tensor`) or per output channel.

    kv_cache: runtimes are to keep keys and values in FP8; see `hyocr_core.formats.cache`.
    """

    api_version: ClassVar[int] = 1
    group_format: ClassVar[str] = "float-quantized"

    weights: Weights
    activations: Activations
    kv_cache: bool = False

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Return the format that a config group describes."""
        # In vLLM a dynamic scale is one per token, whatever it is called.
        weights, activations = read_activations(config, "float", ("token", "tensor"))
        return cls(weights, activations, kv_cache=bool(config.get("kv_cache_scheme")))

    @classmethod
    def usual(cls) -> Mapping[str, Format]:
        """With dynamic and with static activations."""
        return {
            f"compressed-tensors, FP8, {activations} activations": cls("channel", activations)
            for activations in ("dynamic", "static")
        }

    @property
    def per_channel(self) -> bool:
        """By `weights`."""
        return self.weights == "channel"

    def config_group(self) -> dict[str, Any]:
        """Return what config.json says of weights and activations."""
        return write_activations("float", self.weights, self.activations)

    def shared_settings(self) -> dict[str, Any]:
        """Return what config.json says of the cache."""
        cache = {"num_bits": 8, "type": "float", "symmetric": True, "dynamic": False, "strategy": "tensor"}
        return {"kv_cache_scheme": cache} if self.kv_cache else {}

    def runtimes(self, shapes: Mapping[str, tuple[int, int]]) -> Iterable[Runtime]:
        """Say of each runtime whether it loads it."""
        why = UNPACKED if self.must_unpack(shapes) else BF16_SCALES
        return answer(VLLM_CPU, self._cpu_refusal), Runtime(VLLM_CUDA, "yes"), Runtime(TRANSFORMERS, "yes", why)

    def must_unpack(self, shapes: Mapping[str, tuple[int, int]]) -> bool:
        """The matmul of compressed-tensors refuses what the patch merger of a quantized vision tower hands it."""
        return in_vision(shapes)

    @property
    def _cpu_refusal(self) -> str | None:
        if not self.per_channel:
            return ONE_SCALE
        if self.activations == "static":
            return phrase("its CPU matmul takes no static activations with a scale per output channel")
        return None
