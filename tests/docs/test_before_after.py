"""The two commands of docs/evaluation.md that give a table of before and after for a published checkpoint.

The checkpoint is the small document reader under the published name; the pages are its own, laid out as OmniDocBench.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from click.testing import CliRunner

from hyocr_core.checkpoint.quant_report import QuantReport, read_report
from hyocr_core.cli.main import main
from tests.conftest import lay_out_hub
from tests.docs.pages import DOCS, commands
from tests.small_pages import READER, as_omnidocbench, draw, picture

for _library in ("apted", "lxml", "markdown_it", "scipy"):
    pytest.importorskip(_library)

pytestmark = pytest.mark.needs_methods

OUTPUT = "HunyuanOCR-measured"
EACH = 4


@dataclass(frozen=True)
class Shown:
    """table: what the second command printed. html, card, report: what it recorded."""

    table: str
    html: str
    card: str
    report: QuantReport


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    folder = tmp_path_factory.mktemp("before-after")
    (folder / "pages").mkdir()
    for number, document in enumerate(draw("calib", table=EACH, fraction=EACH, lines=EACH)):
        picture(document).save(folder / "pages" / f"{number}.png")
    as_omnidocbench(folder / "OmniDocBench", draw("heldout", table=EACH, fraction=EACH, lines=EACH))
    named = [command for command in commands(DOCS / "evaluation.md") if OUTPUT in command]
    assert [command[:2] for command in named] == [["hyocr", "quant"], ["hyocr", "eval"]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(lay_out_hub(READER, folder / "hub")))
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.chdir(folder)
        done = [CliRunner().invoke(main, command[1:]) for command in named]
    for result in done:
        assert result.exit_code == 0, result.output
    output = folder / OUTPUT
    html, card = ((output / name).read_text(encoding="utf-8") for name in ("report/index.html", "README.md"))
    report = read_report(output)
    return Shown(done[-1].stdout, html, card, report)


PARTS = (
    "tables (TEDS)",
    "structure of tables (TEDS-S)",
    "formulas (edit distance)",
    "formulas without any error",
    "text blocks (edit distance)",
)
ROW = r"^{}( +\d[\d.]*\s%){{2}} +[+−][\d.]+\n  95\s% interval( +\d[\d.]* to [\d.]+){{2}} +−[\d.]+ to \+[\d.]+$"
"""After, before and the difference, each with its interval."""


def test_the_table_has_before_after_and_the_difference_of_each_part(shown: Shown) -> None:
    for part in PARTS:
        assert re.search(ROW.format(re.escape(part)), shown.table, re.MULTILINE), shown.table


def test_report_and_card_have_them_too(shown: Shown) -> None:
    numbers = shown.report.evaluation
    assert numbers is not None
    assert numbers.data == "omnidocbench:OmniDocBench"
    assert {"teds", "teds-structure", "formula", "text-blocks"} <= set(numbers.differences)
    for part in PARTS:
        assert part in shown.html
        assert part in shown.card
