"""Load quantized checkpoints in Transformers itself, with the kernels of the packages behind it."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyocr_core.errors import CheckpointError, MissingRuntimeError, one_line
from hyocr_core.formats import TRANSFORMERS, StoredFormats
from hyocr_core.formats.runtimes import Shapes
from hyocr_core.formats.stored import Unpacking

if TYPE_CHECKING:
    import torch
    from transformers import HunYuanVLForConditionalGeneration


def check_packages(packages: Iterable[str]) -> None:
    """Raise MissingRuntimeError if Transformers lacks one of these packages, which the checkpoint's formats need."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise MissingRuntimeError(f"Transformers needs {' and '.join(missing)} for this format; install that")


def check_native(formats: StoredFormats, shapes: Shapes) -> Unpacking:
    """When such a checkpoint is to be unpacked in Transformers.

    shapes: name -> (N, K) of the quantized linears.
    Raises CheckpointError if Transformers loads no such checkpoint, MissingRuntimeError if it lacks a package here.
    """
    known = next(runtime for runtime in formats.runtimes(shapes) if runtime.name == TRANSFORMERS)
    if known.loads == "no":
        raise CheckpointError(f"Transformers does not load such a checkpoint: {known.why}")
    check_packages(formats.packages)
    return formats.unpacking(shapes)


def load_native(folder: Path, device: torch.device, *, unpacking: Unpacking) -> HunYuanVLForConditionalGeneration:
    """The whole model as Transformers loads it, in eval mode.

    unpacking: when compressed-tensors is to dequantize it, see `check_native`.
    Raises CheckpointError if Transformers or a package behind it refuses the checkpoint or misses a tensor.
    """
    from transformers import CompressedTensorsConfig, HunYuanVLForConditionalGeneration

    how = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if unpacking == "as it loads" else {}
    # Transformers' annotations leave out that it returns two things when asked to.
    load: Any = HunYuanVLForConditionalGeneration.from_pretrained
    try:
        model, report = load(folder, dtype="auto", local_files_only=True, output_loading_info=True, **how)
    except Exception as error:  # whatever Transformers and the packages behind it raise is the checkpoint's fault
        raise CheckpointError(f"Transformers: {one_line(error, 300, named=True)}") from error
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys", "error_msgs"):
        if report.get(kind):
            names = sorted(map(str, report[kind]))
            raise CheckpointError(f"Transformers: {len(names)} {kind.replace('_', ' ')}, the first is {names[0]}")
    if unpacking == "once loaded":
        model.hf_quantizer.compressor.decompress_model(model)
    loaded: HunYuanVLForConditionalGeneration = model.to(device).eval()
    return loaded
