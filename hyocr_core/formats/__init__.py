"""The checkpoint formats that runtimes read, each a frozen dataclass that says all that depends on it.

A method's `pack`, `unpack` and `checkpoint_config` are mostly one call of these; `hyocr verify` reads with them what
others wrote. N = out_features, K = in_features, g = group_size.
"""

from hyocr_core.formats.awq import AwqFormat
from hyocr_core.formats.base import Format, TensorLayout
from hyocr_core.formats.fp8 import CompressedFp8Format, Fp8Format, Fp8Weight
from hyocr_core.formats.gptq import GptqFormat
from hyocr_core.formats.pack_quantized import PackQuantizedFormat
from hyocr_core.formats.read import read_format, read_ignored
from hyocr_core.formats.runtimes import Runtime, runtimes
from hyocr_core.formats.shapes import MISREAD, check_shapes

__all__ = [
    "MISREAD",
    "AwqFormat",
    "CompressedFp8Format",
    "Format",
    "Fp8Format",
    "Fp8Weight",
    "GptqFormat",
    "PackQuantizedFormat",
    "Runtime",
    "TensorLayout",
    "check_shapes",
    "read_format",
    "read_ignored",
    "runtimes",
]
