"""What config.json will say of the linears that the methods of a run quantize."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hyocr_core.contract.types import QuantizedNames
from hyocr_core.errors import ConfigError
from hyocr_core.formats.merged import Written, merged_config
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.known_formats import known_formats, known_runtimes
from hyocr_core.run.overrides import by_options
from hyocr_core.run.plan import Plan
from hyocr_core.run.shares import Share


def written_config(shares: Sequence[Share], model: HunYuanVL, plan: Plan) -> dict[str, Any]:
    """The quantization_config, once each method has accepted its layers with their options.

    Raises ConfigError where a method does not, formats cannot share a checkpoint, or no runtime reads them together.
    """
    for share in shares:
        for own, names in by_options(share.options):
            share.method.check_layers({name: plan.quantized[name] for name in names}, own)
    parts = [_written(share, model, plan) for share in shares]
    if len(parts) == 1:
        return dict(parts[0].config)
    config = merged_config(parts, plan.names.ignored)
    _check_kept(parts, config)
    _check_read(config, plan)
    return config


def _written(share: Share, model: HunYuanVL, plan: Plan) -> Written:
    """What a method says of its own linears, as if all others stayed as they are."""
    memory = {model.memory_names[name]: own for name, own in share.options.items()}
    rest = (*(name for name in plan.names.quantized if name not in memory), *plan.names.ignored)
    config = share.method.checkpoint_config(QuantizedNames(tuple(memory), rest), memory, share.config)
    return Written(share.name, config, tuple(memory))


def _check_kept(parts: Sequence[Written], config: dict[str, Any]) -> None:
    """What is said of each linear is what its method said."""
    merged = known_formats(config)
    for part in parts:
        own = known_formats(part.config)
        if own is None:
            continue
        for name in part.names:
            if merged is None or merged.of(name) != own.of(name):
                others = " and ".join(other.who for other in parts if other is not part)
                raise ConfigError(
                    f"{part.who} cannot share a checkpoint with {others}: {name} would be read otherwise than as "
                    f"{part.who} stores it"
                )


def _check_read(config: dict[str, Any], plan: Plan) -> None:
    found = known_runtimes(config, plan.quantized)
    if all(runtime.loads == "no" for runtime in found):
        raise ConfigError(
            "no runtime reads these formats in one checkpoint: "
            + "; ".join(f"{runtime.name}: {runtime.why}" for runtime in found)
        )
