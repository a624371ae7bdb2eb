from __future__ import annotations

import pytest

from hyocr_core.errors import RunError, one_line


@pytest.mark.parametrize(
    ("error", "plain", "named"),
    [
        (ValueError(" a\n  b\tc\n"), "a b c", "ValueError: a b c"),
        (RunError(), "RunError", "RunError"),
        (KeyError("x"), "'x'", "KeyError: 'x'"),
        (ValueError("x" * 300), cut := "x" * 133 + "…" + "x" * 66, f"ValueError: {cut}"),
    ],
)
def test_an_error_is_one_line(error: Exception, plain: str, named: str) -> None:
    assert (one_line(error), one_line(error, named=True)) == (plain, named)
    assert one_line(ValueError("abc def"), 5) == "abc…f"
