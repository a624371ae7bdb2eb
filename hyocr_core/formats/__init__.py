"""The checkpoint formats that runtimes read, each a frozen dataclass that says all that depends on it.

A method's `pack`, `unpack` and `checkpoint_config` are mostly one call of these; the core reads with them what hyocr
and others wrote. N = out_features, K = in_features, g = group_size.
"""

from hyocr_core.formats.awq import AwqFormat
from hyocr_core.formats.base import Format, TensorLayout
from hyocr_core.formats.bounds import ANY_BITS, EIGHT_BITS, FOUR_BITS, Bound
from hyocr_core.formats.cache import CACHE_SCALES
from hyocr_core.formats.compressed import CompressedFormat, checkpoint_config
from hyocr_core.formats.fp8 import CompressedFp8Format, Fp8Format
from hyocr_core.formats.gptq import GptqFormat
from hyocr_core.formats.ignored import Ignored
from hyocr_core.formats.int_quantized import IntQuantizedFormat
from hyocr_core.formats.integer import IntegerFormat
from hyocr_core.formats.levels import Levels
from hyocr_core.formats.pack_quantized import PackQuantizedFormat
from hyocr_core.formats.rules import Rule
from hyocr_core.formats.runtimes import LLAMA_CPP, TRANSFORMERS, VLLM_CPU, VLLM_CUDA, Runtime
from hyocr_core.formats.scaled import ScaledFormat, ScaledWeight
from hyocr_core.formats.settings_read import one_of
from hyocr_core.formats.shapes import MISREAD, check_shapes, group_fallback
from hyocr_core.formats.stored import StoredFormats

__all__ = [
    "ANY_BITS",
    "CACHE_SCALES",
    "EIGHT_BITS",
    "FOUR_BITS",
    "LLAMA_CPP",
    "MISREAD",
    "TRANSFORMERS",
    "VLLM_CPU",
    "VLLM_CUDA",
    "AwqFormat",
    "Bound",
    "CompressedFormat",
    "CompressedFp8Format",
    "Format",
    "Fp8Format",
    "GptqFormat",
    "Ignored",
    "IntQuantizedFormat",
    "IntegerFormat",
    "Levels",
    "PackQuantizedFormat",
    "Rule",
    "Runtime",
    "ScaledFormat",
    "ScaledWeight",
    "StoredFormats",
    "TensorLayout",
    "check_shapes",
    "checkpoint_config",
    "group_fallback",
    "one_of",
]
