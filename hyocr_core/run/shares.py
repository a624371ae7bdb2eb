"""What each method of a run quantizes: one method alone mostly, several where a recipe says so."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hyocr_core.checkpoint.quant_report import MethodRecord
from hyocr_core.contract.config import MethodConfig, WeightedConfig
from hyocr_core.contract.types import Block
from hyocr_core.models.stages import part_of_block
from hyocr_core.plugin.method import Method
from hyocr_core.run.overrides import differences


@dataclass(frozen=True)
class Share:
    """The linears that one method quantizes.

    config: the options of the run, or of the method's last rule; given: as the user gave them. options: those that hold
    for each linear, by on-disk name.
    """

    method: Method
    config: MethodConfig
    given: Mapping[str, Any]
    options: Mapping[str, MethodConfig]

    @property
    def name(self) -> str:
        return self.method.spec.name

    @property
    def record(self) -> MethodRecord:
        """What the report says of the method."""
        entry = self.method.entry
        return MethodRecord(
            name=self.name,
            distribution=entry.distribution,
            version=entry.version,
            config=self.config.model_dump(mode="json"),
        )

    def options_of_its_own(self, layer: str) -> dict[str, Any]:
        """The options in which a layer differs from `config`."""
        return differences(self.options[layer], self.config)

    def of_block(self, block: Block) -> Block:
        """The block as the method sees it: with its own layers only."""
        return part_of_block(block, self.options)

    def learns_from(self, layers: Iterable[str]) -> bool:
        """Whether calibration data say something to the method of these of its layers."""
        return self.method.spec.needs_calibration and any(self.options[name].needs_calibration for name in layers)

    def follows_reference(self, layers: Iterable[str]) -> bool:
        """Whether it is also shown the full-precision path of these of its layers."""
        return self.method.spec.reference_inputs and any(self.options[name].needs_reference for name in layers)

    def balances_tokens(self, layers: Iterable[str]) -> bool:
        """Whether it is to count some tokens for more than others in these of its layers."""
        return any(_balances(self.options[name]) for name in layers)


def title(shares: Sequence[Share]) -> str:
    """The methods of a run in words."""
    return " + ".join(share.name for share in shares)


def share_of(shares: Iterable[Share], layer: str) -> Share:
    """The one that holds a linear."""
    return next(share for share in shares if layer in share.options)


def in_block(shares: Iterable[Share], layers: Collection[str]) -> list[Share]:
    """Those that hold some of these linears."""
    return [share for share in shares if any(name in share.options for name in layers)]


def _balances(config: MethodConfig) -> bool:
    return isinstance(config, WeightedConfig) and config.weighting == "balanced"
