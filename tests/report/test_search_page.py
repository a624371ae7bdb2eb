"""The plot on the page of a search."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyocr_core.report.search_page import Dot, write_search_page


def page(folder: Path, kls: list[float], dots: list[Dot]) -> str:
    curve = [{"nbytes": 1_000_000 * (place + 1), "kl": kl} for place, kl in enumerate(kls)]
    result = {"model": "m", "data": "d", "nbytes": 1, "kl": 0.0, "budget": {"kl": 0.1}, "curve": curve}
    write_search_page({**result, "tried": [], "groups": []}, dots, folder / "page.html")
    return (folder / "page.html").read_text()


@pytest.mark.parametrize("kls", [[0.0, 0.0], []])
def test_candidates_that_change_nothing_leave_a_page_with_an_empty_plot(kls: list[float], tmp_path: Path) -> None:
    assert page(tmp_path, kls, []).count("<svg") == 2


def test_recipes_that_were_tried_are_named_once_and_powers_can_be_read(tmp_path: Path) -> None:
    tried = [Dot("tried, measured", 1.0 + place, 2e-5, "tried") for place in range(3)]
    found = page(tmp_path, [1e-4, 1e-6], tried)
    assert found.count(">tried, measured<") == 2
    assert "10⁻⁵" in found
