"""What the config.json of a whole checkpoint says: which format stores which linear. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias

from hyocr_core.formats.base import Format
from hyocr_core.formats.compressed import METHOD, CompressedFormat, read_groups
from hyocr_core.formats.ignored import Ignored
from hyocr_core.formats.rules import EVERY, Rule, first_match
from hyocr_core.formats.runtimes import TRANSFORMERS, Runtime, Shapes, together
from hyocr_core.formats.settings_read import refusal
from hyocr_core.wording import phrase

Spellings: TypeAlias = Callable[[str], Iterable[str]]
"""The names that a linear with this one has, on disk and in memory."""

FUSED = phrase(
    "it looks fused layers up by their class or by their fused name, and so may take another rule of config.json for "
    "them than their parts have"
)

ONE_GROUP = phrase(
    "it has to unpack zero points as it loads them, and takes the first config group for all layers; use symmetric "
    "integers"
)

ONCE_LOADED = phrase(
    "needs the package compressed-tensors, and model.hf_quantizer.compressor.decompress_model(model) once it is loaded"
)

Unpacking: TypeAlias = Literal["on first use", "as it loads", "once loaded"]
"""When compressed-tensors unpacks a checkpoint in Transformers: by itself, or because it is told to."""


class Catalogue(Protocol):
    """The formats that are installed."""

    def find(self, name: str) -> type[Format] | None:
        """The one with this name; None when there is none."""

    def names(self) -> dict[str, type[Format]]:
        """All that can be used, by name: for messages."""


def _as_given(name: str) -> Iterable[str]:
    return (name,)


@dataclass(frozen=True)
class StoredFormats:
    """The formats of a checkpoint, by linear.

    rules: what stores which linear, see `of`. ignored: the list of linears that are not quantized.
    """

    rules: tuple[Rule, ...]
    ignored: Ignored
    spellings: Spellings = field(default=_as_given, compare=False)

    @classmethod
    def read(cls, config: Mapping[str, Any], catalogue: Catalogue, spellings: Spellings = _as_given) -> StoredFormats:
        """Read a quantization_config, ours or another tool's.

        Raises CheckpointError naming the key and value that is not read, and what is.
        """
        method = config.get("quant_method")
        if method == METHOD:
            return cls(tuple(_group_rules(config, catalogue)), CompressedFormat.ignored(config), spellings)
        found = catalogue.find(method) if isinstance(method, str) else None
        if found is None or issubclass(found, CompressedFormat):
            known = [name for name, kind in catalogue.names().items() if not issubclass(kind, CompressedFormat)]
            raise refusal("quant_method", method, " or ".join(sorted([*known, METHOD])))
        rules = (*found.exceptions(config), Rule(EVERY, found.read(config)))
        return cls(rules, found.ignored(config), spellings)

    @property
    def formats(self) -> tuple[Format, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys(rule.format for rule in self.rules if rule.format is not None))

    def of(self, name: str) -> Format | None:
        """The format that stores a linear, by its name on disk or in memory; None where config.json has none for it.

        A target that is its name comes before a pattern, and that before `Linear`. Whether `ignored` leaves it out is
        another question.
        """
        return self.of_names((name,) if len(self.rules) == 1 else (name, *self.spellings(name)))

    def of_names(self, names: Collection[str]) -> Format | None:
        """The same for a linear with these names alone."""
        rule = first_match(self.rules, names)
        return None if rule is None else rule.format

    def runtimes(self, shapes: Shapes) -> list[Runtime]:
        """Say of each runtime whether it loads such a checkpoint; shapes: the quantized linears', by name."""
        parts = self._by_format(shapes)
        found = together(written.runtimes(part) for written, part in parts.items())
        if len(parts) > 1 and any(each.name == TRANSFORMERS and each.loads == "yes" for each in found):
            found = [self._several(shapes) or each if each.name == TRANSFORMERS else each for each in found]
        if len({rule.format for rule in self.rules}) == 1 or all(rule.target != EVERY for rule in self.rules):
            return found
        return [
            replace(runtime, loads="unsure", why=FUSED)
            if runtime.name != TRANSFORMERS and runtime.loads == "yes"
            else runtime
            for runtime in found
        ]

    def unpacking(self, shapes: Shapes) -> Unpacking:
        """When compressed-tensors is to dequantize it in Transformers; shapes: the quantized linears', by name."""
        parts = self._by_format(shapes)
        if not any(written.must_unpack(part) for written, part in parts.items()):
            return "on first use"
        # What the vision tower alone asks for can be done as well when all is loaded.
        return "as it loads" if len(parts) == 1 or any(written.must_unpack({}) for written in parts) else "once loaded"

    def _several(self, shapes: Shapes) -> Runtime | None:
        """What Transformers does of several formats, where it is another thing than it does of each."""
        answers = {
            "as it loads": Runtime(TRANSFORMERS, "no", ONE_GROUP),
            "once loaded": Runtime(TRANSFORMERS, "yes", ONCE_LOADED),
        }
        return answers.get(self.unpacking(shapes))

    @property
    def packages(self) -> tuple[str, ...]:
        """What Transformers needs to load it, by the name one imports."""
        return tuple(dict.fromkeys(package for written in self.formats for package in written.packages))

    def _by_format(self, shapes: Shapes) -> dict[Format, dict[str, tuple[int, int]]]:
        parts: dict[Format, dict[str, tuple[int, int]]] = {written: {} for written in self.formats}
        for name, shape in shapes.items():
            written = self.of(name)
            if written is not None:
                parts[written][name] = shape
        used = {written: part for written, part in parts.items() if part}
        return used or parts


def _group_rules(config: Mapping[str, Any], catalogue: Catalogue) -> Iterable[Rule]:
    for kind, targets, settings in read_groups(config):
        found = catalogue.find(kind) if isinstance(kind, str) else None
        if found is None or not issubclass(found, CompressedFormat):
            known = [name for name, each in catalogue.names().items() if issubclass(each, CompressedFormat)]
            raise refusal("format", kind, " or ".join(sorted(known)))
        written = found.read(settings)
        yield from (Rule(target, written) for target in targets)
