"""Which linears a quantization_config leaves out, by the rules of the runtimes that read it. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hyocr_core.formats.patterns import begins

VLLM, TRANSFORMERS = "vLLM", "Transformers"


@dataclass(frozen=True)
class Ignored:
    """The list `key` of a quantization_config.

    entries: None when there is no list, and the runtimes see in the shards what is quantized.
    rule: how an entry matches the in-memory name of a linear. `substring`: in vLLM anywhere in it, in Transformers as a
    regular expression up to a dot, or at its end. `exact`: the whole name, and in Transformers also as before.
    `pattern`: the whole name, or the regular expression after `re:`.
    """

    key: str
    entries: tuple[str, ...] | None
    rule: Literal["substring", "exact", "pattern"]

    def by(self, name: str) -> frozenset[str]:
        """The runtimes that leave the linear with this in-memory name unquantized."""
        entries = self.entries or ()
        if self.rule == "pattern":
            return frozenset((VLLM, TRANSFORMERS) if any(_is_match(entry, name) for entry in entries) else ())
        in_vllm = name in entries if self.rule == "exact" else any(entry in name for entry in entries)
        runtimes = ((VLLM, in_vllm), (TRANSFORMERS, _skipped_by_transformers(entries, name)))
        return frozenset(runtime for runtime, skipped in runtimes if skipped)


def _is_match(entry: str, name: str) -> bool:
    """As compressed-tensors and vLLM's reader of it compare names."""
    return begins(entry[3:], name) if entry.startswith("re:") else entry == name


def _skipped_by_transformers(entries: Iterable[str], name: str) -> bool:
    """As `should_convert_module` in Transformers 5 does."""
    return any(name.endswith(entry) or begins(rf"(?:{entry})(?:(?<=\.)|(?=\.|$))", name) for entry in entries)
