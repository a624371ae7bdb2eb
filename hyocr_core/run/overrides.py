"""Options of single layers: which ones hold for each, from the run's patterns and from what a method prepared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from hyocr_core.contract.config import Fallback, MethodConfig
from hyocr_core.errors import ConfigError
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.plugin.method import Method
from hyocr_core.run.plan import Plan
from hyocr_core.settings.recipe import matches

Overrides = Mapping[str, Mapping[str, Any]]

OF_THE_RUN = ("format", "ignore", "keep_ends", "quant_vit")
"""Options that say something of the whole checkpoint."""


class LayerOptions(NamedTuple):
    """configs: the options that hold for each layer to quantize, by on-disk name.

    fallbacks: of those among them that the options chosen for them cannot hold.
    """

    configs: dict[str, MethodConfig]
    fallbacks: dict[str, Fallback]


def layer_options(
    method: Method, options: Mapping[str, Any], overrides: Overrides, model: HunYuanVL, plan: Plan
) -> LayerOptions:
    """Decide what holds for each layer to quantize: the first pattern that matches counts, then the method's fallbacks.

    Raises ConfigError naming the pattern: it matches no layer, an option is unknown or of the whole run, or layers that
    share an input would get different ones.
    """
    configs = {"": method.config(options)}
    for pattern, own in overrides.items():
        where = f"overrides: {pattern!r}"
        for key in OF_THE_RUN:
            if key in own:
                raise ConfigError(f"{where}: {key} is an option of the whole run, not of single layers")
        if not any(_matches(pattern, name, model) for name in plan.quantized):
            raise ConfigError(
                f"{where} matches no layer that is quantized; names look like {next(iter(plan.quantized))}"
            )
        configs[pattern] = method.config({**options, **own}, where)
    chosen = {name: _first(overrides, name, model) for name in plan.quantized}
    _check_groups(chosen, configs, model)
    found = {name: configs[pattern] for name, pattern in chosen.items()}
    fallbacks = {}
    for name, pattern in chosen.items():
        own = overrides.get(pattern, {})
        fallback = method.fallback(found[name], plan.quantized[name])
        if fallback is not None and not (fallback.options or {}).keys() & own.keys():
            fallbacks[name] = fallback
            found[name] = method.config({**options, **own, **(fallback.options or {})}, name)
    return LayerOptions(found, fallbacks)


def differences(config: MethodConfig, base: MethodConfig) -> dict[str, Any]:
    """The options of a layer that are not those of the run, as JSON has them."""
    own, shared = config.model_dump(mode="json"), base.model_dump(mode="json")
    return {key: value for key, value in own.items() if shared[key] != value}


def by_options(options: Mapping[str, MethodConfig]) -> list[tuple[MethodConfig, list[str]]]:
    """Each set of options with the layers that have it, in their order."""
    found: list[tuple[MethodConfig, list[str]]] = []
    for name, config in options.items():
        names = next((names for other, names in found if other == config), None)
        if names is None:
            found.append((config, [name]))
        else:
            names.append(name)
    return found


def _first(overrides: Overrides, name: str, model: HunYuanVL) -> str:
    return next((pattern for pattern in overrides if _matches(pattern, name, model)), "")


def _matches(pattern: str, name: str, model: HunYuanVL) -> bool:
    return matches(pattern, name) or matches(pattern, model.memory_names[name])


def _check_groups(chosen: Mapping[str, str], configs: Mapping[str, MethodConfig], model: HunYuanVL) -> None:
    """Runtimes fuse the layers of a group into one weight, and methods quantize them together."""
    for place in (*model.vision_blocks, *model.decoder_blocks):
        for group in model.groups(place):
            members = [name for name in group if name in chosen]
            for name in members[1:]:
                if configs[chosen[name]] != configs[chosen[members[0]]]:
                    pattern = chosen[name] or chosen[members[0]]
                    raise ConfigError(
                        f"overrides: {pattern!r} gives {members[0]} and {name} different options, but they share an "
                        "input and are stored together; match all of them or none"
                    )
