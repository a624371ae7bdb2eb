"""Read single settings of a quantization_config, ours or another tool's. Imports no torch.

What hyocr cannot read is refused by key and value: guessing here would dequantize garbage later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hyocr_core.errors import CheckpointError
from hyocr_core.formats.patterns import pattern_problem

_MISSING = object()


def one_of(config: Mapping[str, Any], key: str, allowed: Iterable[Any], default: Any = _MISSING) -> Any:
    """The value of a key, which must be one of `allowed`; raises CheckpointError naming key and value."""
    allowed, value = tuple(allowed), config.get(key, default)
    # Compared with their types, because 1 == True.
    if not any(type(value) is type(choice) and value == choice for choice in allowed):
        raise refusal(key, None if value is _MISSING else value, " or ".join(map(str, allowed)))
    return value


def mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The value of a key, which must be a mapping."""
    value = config.get(key)
    if not isinstance(value, Mapping):
        raise refusal(key, value, "a mapping")
    return value


def name_list(config: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    """A list of names and regular expressions; None when there is none."""
    value = config.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise refusal(key, value, "a list of names")
    for name in value:
        check_pattern(key, name, name.removeprefix("re:"))
    return tuple(value)


def check_pattern(key: str, shown: str, pattern: str) -> None:
    """Raise CheckpointError when a pattern, part of what is shown, is no regular expression."""
    problem = pattern_problem(pattern)
    if problem is not None:
        raise CheckpointError(
            f"config.json: quantization_config: {key}: {shown!r} is no regular expression to use: {problem}"
        )


def group_size(config: Mapping[str, Any], key: str) -> int:
    """The size of a group of input channels; -1 is one group per output."""
    value = config.get(key)
    if type(value) is not int or not (value == -1 or value > 0):
        raise refusal(key, value, "-1 or a positive number")
    return value


def refusal(key: str, value: object, expected: str) -> CheckpointError:
    """The error for a value that hyocr does not read."""
    return CheckpointError(f"config.json: quantization_config: {key}: {value!r} is not read by hyocr, only {expected}")
