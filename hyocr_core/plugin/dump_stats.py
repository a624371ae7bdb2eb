"""The observer `dump-stats`: writes what `calibrate` learnt of every layer, one safetensors file for each block."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from hyocr_core.contract.observer import Observer, ObserverConfig
from hyocr_core.contract.types import HookCall
from hyocr_core.outside.home import expanded

if TYPE_CHECKING:
    from torch import Tensor


class DumpStatsConfig(ObserverConfig):
    """Options of `dump-stats`."""

    folder: Path = Field(description="folder for the files; made if it is missing")


class DumpStats(Observer):
    """Write what `calibrate` gathered of every layer, one safetensors file for each block, or for each group it saw.

    FOLDER/NAME.safetensors, named for the block or the group's first layer, holds LAYER.STATISTIC; of a square matrix
    its diagonal: of a sum of X^T X that is the sum of squares that each input channel saw, (K,). A run that is resumed
    adds the blocks that it calibrates.
    """

    api_version: ClassVar[int] = 1
    config_class: ClassVar[type[ObserverConfig]] = DumpStatsConfig
    hooks: ClassVar[tuple[str, ...]] = ("calibrate",)

    def __init__(self, config: DumpStatsConfig) -> None:
        from hyocr_core.checkpoint.output_file import check_output_folder

        self._folder = expanded(config.folder)
        check_output_folder(self._folder)
        self._folder.mkdir(parents=True, exist_ok=True)

    def called(self, call: HookCall) -> None:
        """Write the file of one block or group."""
        from hyocr_core.checkpoint.durable import replacing
        from hyocr_core.checkpoint.shards import save_tensors

        found = {
            f"{layer}.{name}": _small(stat.value)
            for layer, stats in call.result.items()
            for name, stat in stats.items()
        }
        with replacing(self._folder / f"{call.layer.partition(', ')[0]}.safetensors") as partial:
            save_tensors(partial, found)


def _small(tensor: Tensor) -> Tensor:
    """A copy, since layers may share a tensor, which safetensors refuses."""
    square = tensor.ndim == 2 and tensor.shape[0] == tensor.shape[1]
    return (tensor.diagonal() if square else tensor).cpu().clone().contiguous()
