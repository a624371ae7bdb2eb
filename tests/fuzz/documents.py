"""Strategies for texts of JSON and YAML that are nearly what is expected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

Path = tuple[str | int, ...]

MARKUP = "[/b] [red]<b>|`*_ %s {x} \\"
WORDS = (
    *("", " ", "_", "0", "-1", "1e400", "nan", "true", "null", "~", "*", "re:(", "re:.*", "..", "/", "/dev/null", "."),
    *(MARKUP, "=1+1", "\x1b[31m\x07", "\x00", "\u202eabc", "\udcff", "\ud800", "é" * 300, "a" * 5_000, "a\nb\rc"),
    *("Linear", "model.layers.0", "float16", "bfloat16", "gptq", "awq", "fp8", "hf:x", "synthetic:2", "{{", "🙂"),
)
NUMBERS = (
    *(0, 1, -1, 2, 3, 7, 255, 2**31, 2**63, 2**64, -(2**63), 10**30, 10**400, -0.0, 0.5, 1e-300, 1e300),
    *(float("nan"), float("inf"), -float("inf")),
)


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if depth % 2 else [value]
    return value


def odd_values() -> st.SearchStrategy[Any]:
    """Values that stand where others belong."""
    scalars = st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from(NUMBERS),
        st.integers(-1000, 100_000),
        st.floats(),
        st.sampled_from(WORDS),
        st.text(st.characters(codec=None), max_size=12),
    )
    deep = st.sampled_from([20, 63, 64, 199, 400]).map(_nested)
    return st.one_of(
        scalars,
        scalars,
        st.lists(scalars, max_size=4),
        st.dictionaries(st.sampled_from(WORDS), scalars, max_size=3),
        deep,
    )


@st.composite
def broken(draw: st.DrawFn, document: Any) -> Any:
    """The document after a few edits, of which each is made anywhere in it."""
    edited = deepcopy(document)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 4]))):
        edited = _edit(draw, edited)
    return edited


def _edit(draw: st.DrawFn, document: Any) -> Any:
    paths = list(_paths(document))
    # A document has more leaves than branches, which would else hardly be met.
    depth = draw(st.integers(0, max(map(len, paths))))
    path = draw(st.sampled_from([path for path in paths if len(path) == depth]))
    if not path:
        return draw(odd_values()) if draw(st.booleans()) else _with_more(draw, document)
    inside = document
    for step in path[:-1]:
        inside = inside[step]
    last: Any = path[-1]
    what = draw(st.sampled_from(["alike", "alike", "replace", "drop", "another's", "more", "rename"]))
    if what == "alike":
        inside[last] = draw(_like(inside[last]))
    elif what == "drop":
        del inside[last]
    elif what == "another's":
        inside[last] = deepcopy(_at(document, draw(st.sampled_from(paths))))
    elif what == "more":
        inside[last] = _with_more(draw, inside[last])
    elif what == "rename" and isinstance(inside, dict):
        inside[draw(st.sampled_from(WORDS))] = inside.pop(last)
    else:
        inside[last] = draw(odd_values())
    return document


def _like(value: Any) -> st.SearchStrategy[Any]:
    """Another value of the same type, which is not refused for that."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return odd_values()
    if isinstance(value, str):
        return st.sampled_from(WORDS)
    return st.sampled_from([number for number in NUMBERS if isinstance(number, type(value))])


def _with_more(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict):
        return value | {draw(st.sampled_from(WORDS)): draw(odd_values())}
    if isinstance(value, list):
        return [*value, *value, draw(odd_values())]
    if isinstance(value, str):
        return value + draw(st.sampled_from(WORDS))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return draw(st.sampled_from([-value, value + 1, value * 10**9, value * 2, str(value)[:99]]))
    return [value]


def _paths(value: Any, above: Path = ()) -> Iterator[Path]:
    yield above
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inside:
        yield from _paths(child, (*above, key))


def _at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def json_texts(document: Any) -> st.SearchStrategy[bytes]:
    """JSON of a broken document; now and then no JSON."""
    written = broken(document).map(lambda value: json.dumps(value).encode())
    return st.one_of(written, written, written, torn(json.dumps(document).encode()), hopeless())


WHOLE = (
    *(b"", b"{", b"[]", b"null", b"1", b'"a"', b"\xff\xfe", b"\xef\xbb\xbf{}", b"{}", b'{"a": 1, "a": {}}'),
    *(b'{"a": 1e999}', b'{"a": NaN}', b'{"\\ud800": "\\udc00"}'),
)
ENDLESS = (b"[", b'{"a":', b"9", b"\0")


def hopeless() -> st.SearchStrategy[bytes]:
    """Files that have nothing of what is expected."""
    return st.one_of(st.sampled_from(WHOLE), st.sampled_from(ENDLESS).map(lambda text: text * 100_000))


@st.composite
def torn(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes of a file after a few of them were lost, repeated, zeroed or replaced."""
    torn = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, max(len(torn) - 1, 0)))
        end = min(len(torn), start + draw(st.sampled_from([1, 1, 4, 64, 1 << 20])))
        what = draw(st.sampled_from(["drop", "repeat", "zero", "replace"]))
        if what == "drop":
            del torn[start:end]
        elif what == "repeat":
            torn[start:start] = torn[start : min(end, start + 4096)] * draw(st.integers(1, 3))
        elif what == "zero":
            torn[start:end] = bytes(end - start)
        else:
            torn[start:end] = draw(st.binary(max_size=8))
    return bytes(torn)
