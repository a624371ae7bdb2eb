"""The full-precision checkpoint that a quantized one was made from."""

from __future__ import annotations

from torch import Tensor

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.errors import CheckpointError
from hyocr_core.models.spelling import memory_name
from hyocr_core.verification.subject import Linear


class Original:
    """Its tensors by in-memory name, so that it does not matter which names either checkpoint has on disk."""

    def __init__(self, reader: CheckpointReader) -> None:
        if reader.config.get("quantization_config"):
            raise CheckpointError(f"{reader.folder}: is quantized too; --original is the full-precision checkpoint")
        self.reader = reader
        self._names = {memory_name(name): name for name in reader.tensors}

    def read(self, memory: str) -> Tensor | None:
        """The tensor as it is stored; None when there is none."""
        name = self._names.get(memory)
        return None if name is None else self.reader.read([name])[name]

    def weight(self, linear: Linear) -> Tensor | None:
        """The weight of a linear in fp32; None when there is none of its shape."""
        weight = self.read(f"{linear.memory}.weight")
        return None if weight is None or tuple(weight.shape) != linear.shape else weight.float()
