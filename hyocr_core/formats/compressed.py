"""Formats that are config groups of `compressed-tensors`: the file's settings apart, with one of them or with several.

Imports no torch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from hyocr_core.contract.types import QuantizedNames
from hyocr_core.errors import ConfigError
from hyocr_core.formats.base import Format
from hyocr_core.formats.ignored import Ignored
from hyocr_core.formats.rules import EVERY, PATTERN
from hyocr_core.formats.settings_read import mapping, name_list, one_of, refusal
from hyocr_core.wording import phrase

METHOD = "compressed-tensors"
MIXED = "mixed-precision"
"""What `format` says of a checkpoint whose groups have several."""
NEEDED = phrase("needs the package compressed-tensors")
UNPACKED = phrase("needs the package compressed-tensors, and CompressedTensorsConfig(dequantize=True)")


class CompressedFormat(Format):
    """A config group of compressed-tensors; its entry point is called as the value of `format` that means it.

    `read` is given the group, without targets and `format`, and beside it what the whole config says of all groups.
    group_format: the value of `format` that is written.
    """

    group_format: ClassVar[str]

    @abstractmethod
    def config_group(self) -> dict[str, Any]:
        """Return the group without targets: what config.json says of weights and activations."""

    def shared_settings(self) -> dict[str, Any]:
        """Return what config.json says beside the groups, for all of them."""
        return {}

    @classmethod
    def ignored(cls, config: Mapping[str, Any]) -> Ignored:
        """`ignore`."""
        return Ignored("ignore", name_list(config, "ignore") or (), "pattern")

    def quantization_config(self, names: QuantizedNames) -> dict[str, Any]:
        """Return what config.json says: one group for every linear, and the name of every unquantized one."""
        groups = {"group_0": {"targets": [EVERY], **self.config_group()}}
        return whole_config(self.group_format, groups, self.shared_settings(), names.ignored)

    @property
    def packages(self) -> tuple[str, ...]:
        """The library of that name."""
        return ("compressed_tensors",)


def checkpoint_config(layers: Mapping[str, Format], names: QuantizedNames) -> dict[str, Any]:
    """Return the quantization_config of a checkpoint whose linears, by in-memory name, are stored in these formats.

    Raises ConfigError when they differ in a format that has no room for that.
    """
    members: dict[Format, list[str]] = {}
    for name, written in layers.items():
        members.setdefault(written, []).append(name)
    first, *others = members
    if not others:
        return first.quantization_config(names)
    groups = {}
    for index, (written, targets) in enumerate(members.items()):
        if not isinstance(written, CompressedFormat):
            method = written.quantization_config(names)["quant_method"]
            raise ConfigError(
                f"format {method} has no room for layers with different options, such as {members[first][0]} "
                f"({first.in_words}) and {members[others[0]][0]} ({others[0].in_words}); use format: {METHOD}"
            )
        # By their names: of a group for all linears beside one for some, vLLM takes the first for fused ones.
        groups[f"group_{index}"] = {"targets": targets, "format": written.group_format, **written.config_group()}
    kinds = {group["format"] for group in groups.values()}
    return whole_config(kinds.pop() if len(kinds) == 1 else MIXED, groups, _shared_settings(members), names.ignored)


def whole_config(
    kind: str, groups: Mapping[str, Any], settings: Mapping[str, Any], ignored: Iterable[str]
) -> dict[str, Any]:
    """Return a quantization_config. kind: `format` of the whole. settings: beside the groups, for all of them."""
    return {
        "quant_method": METHOD,
        "format": kind,
        "quantization_status": "compressed",
        "ignore": list(ignored),
        "config_groups": dict(groups),
        **settings,
    }


def read_groups(config: Mapping[str, Any]) -> Iterator[tuple[Any, tuple[str, ...], dict[str, Any]]]:
    """Yield `format`, targets and settings of every config group, in order."""
    # What is rotated or sparse cannot be read weight by weight.
    one_of(config, "transform_config", (None, {}), default=None)
    found = mapping(config, "config_groups")
    if not found:
        raise refusal("config_groups", {}, "one or more groups")
    for key in found:
        group = mapping(found, key)
        one_of(group, "output_activations", (None,), default=None)
        settings = {name: value for name, value in group.items() if name not in ("targets", "format")}
        kind = config.get("format") if group.get("format") is None else group["format"]
        yield kind, _targets(group), {**settings, "kv_cache_scheme": config.get("kv_cache_scheme")}


def _targets(group: Mapping[str, Any]) -> tuple[str, ...]:
    found = name_list(group, "targets") or ()
    for target in found:
        # The classes of other modules begin with a capital, no module's name does.
        if target != EVERY and not target.startswith(PATTERN) and target[:1].isupper():
            raise refusal("config_groups.targets", target, f"{EVERY}, names of linears and patterns after {PATTERN}")
    if not found:
        raise refusal("config_groups.targets", group.get("targets"), "a list of names")
    return found


def _shared_settings(members: Mapping[Format, list[str]]) -> dict[str, Any]:
    groups = {written: name for written, (name, *_) in members.items() if isinstance(written, CompressedFormat)}
    settings = {key: value for written in groups for key, value in written.shared_settings().items()}
    for written, name in groups.items():
        if type(written).read({**written.config_group(), **settings}) != written:
            raise ConfigError(
                f"{name}: {', '.join(settings)} holds for all layers of {METHOD}, and this one is without"
            )
    return settings
