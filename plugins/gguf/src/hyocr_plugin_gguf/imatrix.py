"""The mean squares of the linears' inputs over the calibration pages, as `llama-quantize --imatrix` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from gguf import GGUFWriter

from hyocr_plugin_gguf.names import gguf_module, is_vision
from hyocr_plugin_gguf.stored import IMPORTANCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hyocr_plugin_gguf.opened import Opened

FILE_NAME = "imatrix.gguf"


def importance(opened: Opened) -> Mapping[str, NDArray[np.float32]]:
    """Name in GGUF of each calibrated linear's weight of the text part -> (K,) mean square of its inputs."""
    found = {}
    for name in opened.places:
        module, _, local = name.rpartition(".")
        if local == IMPORTANCE and not is_vision(name):
            found[f"{gguf_module(module)}.weight"] = opened.read(name).numpy()
    return found


def write_imatrix(path: Path, means: Mapping[str, NDArray[np.float32]]) -> None:
    """Write the importance matrix. Sums are of one token each: only their ratio to the count is read."""
    writer = GGUFWriter(path, arch="")
    writer.kv_data[0].pop("general.architecture", None)
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["hyocr"])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", 1)
    for name, mean in means.items():
        writer.add_tensor(f"{name}.in_sum2", mean.reshape(1, -1))
        writer.add_tensor(f"{name}.counts", np.ones((1, 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
