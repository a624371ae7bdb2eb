"""A metric from another distribution is in everything that an evaluation says, and cannot break any other."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from hyocr_core.checkpoint.quant_report import read_report
from hyocr_core.cli.main import main
from hyocr_core.evaluation.parts.extraction import FieldF1, ValidJson
from hyocr_core.evaluation.parts.formulas import FormulaDistance, FormulaExact
from hyocr_core.evaluation.parts.olmocr_tests import OlmOcrTests
from hyocr_core.evaluation.parts.outline import OutlineF1
from hyocr_core.evaluation.parts.spotting import SpottingF1
from hyocr_core.evaluation.parts.tables import Teds, TedsStructure
from hyocr_core.evaluation.parts.text_blocks import ReadingOrder, TextBlocks
from hyocr_core.evaluation.recorded.record_folder import load_evaluation
from hyocr_core.evaluation.scores.error_rates import BUILT_IN
from hyocr_core.evaluation.scores.rates import bootstrap_interval
from hyocr_core.evaluation.scores.result import EvalResult
from hyocr_core.plugin.metrics import installed_metrics, load_metric
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from tests.evaluation.plugins import METRIC, install, install_metric, install_words_found

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

pytestmark = pytest.mark.needs_methods

PARTS = {
    "teds": Teds,
    "teds-structure": TedsStructure,
    "formula": FormulaDistance,
    "formula-exact": FormulaExact,
    "text-blocks": TextBlocks,
    "reading-order": ReadingOrder,
    "spotting-f1": SpottingF1,
    "field-f1": FieldF1,
    "valid-json": ValidJson,
    "outline-f1": OutlineF1,
    "olmocr-tests": OlmOcrTests,
}
"""Those that come with hyocr and are measured where they are named."""

WORDS = ["alpha beta gamma", "to be or", "x", "one two"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "pages"
    data.mkdir()
    for index, words in enumerate(WORDS):
        Image.new("RGB", (256, 32), (index * 60, 9, 200)).save(data / f"{index}.png")
        (data / f"{index}.txt").write_text(f"{words}\n")
    return data


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def evaluated(model: Path, folder: Path, *arguments: object) -> Result:
    return run("eval", model, "--data", folder, "--max-new-tokens", 4, *arguments)


def refusal(result: Result, code: int = 2) -> str:
    assert result.exit_code == code, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("hyocr: error: ")]
    return line.removeprefix("hyocr: error: ")


def plain(text: str) -> str:
    return " ".join(text.split())


def test_those_of_the_core_are_registered() -> None:
    ours = {entry.name: load_metric(entry.selector).cls for entry in installed_metrics()}
    assert ours == {name: type(metric) for name, metric in BUILT_IN.items()} | PARTS


def test_a_metric_of_another_distribution_is_everywhere(
    plugins: PluginFolder, tiny: Path, by_rtn: Path, folder: Path, tmp_path: Path
) -> None:
    install_metric(plugins, "float(len(text.rstrip()) % 5)", name="ee")
    mine = shutil.copytree(by_rtn, tmp_path / "mine")
    rows = tmp_path / "pages.csv"
    given = ("--baseline", tiny, "--metrics", "ee", "--gate", "ee=9", "--record")
    shown = evaluated(mine, folder, *given, "--csv", rows, "--json")
    assert shown.exit_code == 0, shown.output
    result = EvalResult.model_validate_json(shown.stdout)
    found = [float(len(page.text) % 5) for page in result.pages]
    before = [float(len(page.baseline_text or "") % 5) for page in result.pages]
    assert len({*found, *before}) > 1, "the texts of the random models must differ in it"
    assert [page.metrics for page in result.pages] == [{"ee": number} for number in found]
    assert [page.baseline_metrics for page in result.pages] == [{"ee": number} for number in before]
    assert result.baseline is not None
    assert result.comparison is not None
    value, other = result.model.metrics["ee"], result.baseline.metrics["ee"]
    assert (value.value, other.value) == (sum(found) / 4, sum(before) / 4)
    assert value.interval == bootstrap_interval(found, [1] * 4, seed=0)
    assert result.comparison.metrics["ee"].value == pytest.approx(value.value - other.value)
    assert result.metrics["ee"].model_dump() == {
        "title": "toy",
        "unit": "",
        "better": "smaller",
        "distribution": "hyocr-toys",
        "version": "0.0.1",
    }
    assert result.gate is not None
    assert [figure.metric for figure in result.gate.figures] == ["ee"]
    assert load_evaluation(mine) == result

    with rows.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [float(row["ee"]) for row in table] == found
    assert [float(row["baseline_ee"]) for row in table] == before
    shown = evaluated(mine, folder, *given)
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("toy ")]
    assert [float(cell) for cell in line.split()[1:3]] == [value.value, other.value]
    assert ">toy</th>" in plain((mine / "report" / "index.html").read_text(encoding="utf-8"))
    card = (mine / "README.md").read_text(encoding="utf-8")
    assert "| loops | toy | weights |" in card
    numbers = read_report(mine).evaluation
    assert numbers is not None
    assert (numbers.metrics, numbers.model.metrics) == (result.metrics, {"ee": value.value})

    twin = shutil.copytree(mine, tmp_path / "twin")
    compared = run("compare", mine, twin)
    assert compared.exit_code == 0, compared.output
    assert "toy" in compared.stdout.splitlines()[1].split()
    candidates = json.loads(run("compare", mine, twin, "--json").stdout)["candidates"]
    assert [row["metrics"] for row in candidates] == [{"ee": other.value}, *[{"ee": value.value}] * 2]
    assert run("report", mine, "--compare", twin).exit_code == 0


def test_what_was_recorded_is_read_without_the_metric(
    plugins: PluginFolder, tiny: Path, by_rtn: Path, folder: Path, tmp_path: Path
) -> None:
    install_metric(plugins, "1.0")
    mine = shutil.copytree(by_rtn, tmp_path / "mine")
    assert evaluated(mine, folder, "--baseline", tiny, "--metrics", "toy", "--record").exit_code == 0
    shutil.rmtree(plugins.folder)
    plugins.folder.mkdir()
    assert "no metric 'toy'" in refusal(evaluated(mine, folder, "--metrics", "toy"))
    assert run("report", mine).exit_code == 0
    assert ">toy</th>" in plain((mine / "report" / "index.html").read_text(encoding="utf-8"))


def test_the_metric_of_the_documentation(plugins: PluginFolder, tiny: Path, by_rtn: Path, folder: Path) -> None:
    install_words_found(plugins)
    for index in range(4):
        (folder / f"{index}.txt").write_text(f"{WORDS[index]}\n")
    data = json.loads(evaluated(by_rtn, folder, "--metrics", "words-found:shortest=3", "--json").stdout)
    words = [[word for word in line.split() if len(word) >= 3] for line in WORDS]
    found = [sum(word in page["text"] for word in some) for page, some in zip(data["pages"], words, strict=True)]
    counted = [page["metrics"].get("words-found") for page in data["pages"]]
    assert counted == [number if some else None for number, some in zip(found, words, strict=True)]
    assert counted[2] is None, "which has no such word"
    assert data["model"]["metrics"]["words-found"]["value"] == sum(found) / sum(map(len, words))
    assert data["metrics"]["words-found"]["unit"] == "%"
    shown = evaluated(by_rtn, folder, "--metrics", "words-found")
    assert re.search(r"^words found +\d+\.\d\d\s%", shown.stdout, re.MULTILINE)
    wrong = refusal(evaluated(by_rtn, folder, "--metrics", "words-found:shortest=0"))
    assert wrong.startswith("metric words-found (hyocr-toys 0.0.1): options: shortest = 0: should be")


@pytest.mark.parametrize(
    ("better", "bound", "passes"), [("smaller", 0.9, False), ("smaller", 1, True), ("larger", 0, True)]
)
def test_a_gate_bounds_the_difference_in_the_bad_direction(
    plugins: PluginFolder, tiny: Path, noisy: Path, folder: Path, better: str, bound: float, passes: bool
) -> None:
    install_metric(plugins, "float(next(self.numbers))")
    module = plugins.folder / "hostile_toys_toy.py"
    # Read in the order of the readers: the model's four pages, then the baseline's.
    source = module.read_text().replace('title = "toy"', f'title = "toy"\n    better = "{better}"')
    module.write_text(source + "\n    numbers = iter([2, 2, 2, 2, 1, 1, 1, 1])\n")
    result = evaluated(noisy, folder, "--baseline", tiny, "--gate", f"toy={bound}", "--json")
    assert json.loads(result.stdout)["comparison"]["metrics"]["toy"]["value"] == 1
    if passes:
        assert result.exit_code == 0, result.output
    else:
        assert refusal(result, code=1) == f"gate failed: toy 1 > {bound}"


def test_a_run_holds_its_checkpoint_to_a_metric(
    plugins: PluginFolder, demo: Path, calib: str, heldout: str, tmp_path: Path
) -> None:
    install_metric(plugins, "float(len(text))", name="length")
    given = ("--model", demo, "--calib", calib, "--num-samples", 2, "--eval", heldout, "--eval-samples", 4)
    out = tmp_path / "out"
    made = run("quant", "--method", "gptq", *given, "--metrics", "length", "--gate", "length=9", "--output", out)
    assert made.exit_code == 0, made.output
    report = read_report(out)
    assert report.gate is not None
    assert [figure.metric for figure in report.gate.figures] == ["length"]
    assert report.evaluation is not None
    assert report.evaluation.model.metrics.keys() == {"length"}
    assert re.search(r"^toy \d", made.stderr, re.MULTILINE)
    assert "| toy |" in (out / "README.md").read_text(encoding="utf-8")
    config = RunConfig(model=str(demo), output=tmp_path / "b", method="rtn", eval=heldout, metrics="length")
    assert config.metrics == {"length": {}}


def test_a_run_with_a_broken_metric_is_refused_before_it_begins(
    plugins: PluginFolder, demo: Path, heldout: str, tmp_path: Path
) -> None:
    install(plugins, "metrics", "toy", "raise ValueError('no')")
    given = {"model": str(demo), "output": tmp_path / "out", "method": "rtn", "eval": heldout, "eval_samples": 2}
    with pytest.raises(ValueError, match=r"metric toy \(hyocr-toys 0\.0\.1\): importing .* failed: ValueError: no"):
        quantize(RunConfig(**given, metrics={"toy": {}}))
    assert list(tmp_path.glob("out*")) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("float('nan')", "0.png: its number is nan, which is no finite number"),
        ("float('inf') if 'beta' in reference else 1", "0.png: its number is inf, which is no finite number"),
        ("None", "0.png: its number is None, which is no finite number"),
        ("'3'", "0.png: its number is '3', which is no finite number"),
        ("1 // (len(reference.strip()) - 1)", "2.png: ZeroDivisionError: "),
    ],
)
def test_what_is_no_number_is_refused_and_what_was_read_is_kept(
    plugins: PluginFolder, tiny: Path, folder: Path, value: str, message: str
) -> None:
    install_metric(plugins, value)
    result = evaluated(tiny, folder, "--metrics", "toy")
    assert refusal(result).startswith(f"metric toy (hyocr-toys 0.0.1): {message}")
    assert result.stdout == ""
    again = evaluated(tiny, folder)
    assert again.exit_code == 0, again.output
    assert "4 of 4 pages are kept from an interrupted run" in again.stderr


def test_two_distributions_that_claim_one_name_are_both_named(plugins: PluginFolder, tiny: Path, folder: Path) -> None:
    for of in ("toys", "twins"):
        install_metric(plugins, "1", of=of)
    expected = "the metric toy is offered by hyocr-toys 0.0.1 and hyocr-twins 0.0.1; say --metrics hyocr-toys:toy or "
    for arguments in (["--metrics", "toy"], ["--baseline", tiny, "--gate", "toy=1"]):
        assert expected in refusal(evaluated(tiny, folder, *arguments))
    chosen = evaluated(tiny, folder, "--metrics", "hyocr-twins:toy", "--json")
    assert json.loads(chosen.stdout)["model"]["metrics"]["hyocr-twins:toy"]["value"] == 1


def test_a_neighbour_that_takes_a_name_of_the_core_breaks_nothing_that_does_not_name_it(
    plugins: PluginFolder, tiny: Path, folder: Path
) -> None:
    install_metric(plugins, "1", name="cer")
    assert evaluated(tiny, folder).exit_code == 0
    assert "the metric cer is offered by hyocr-core " in refusal(
        evaluated(tiny, folder, "--baseline", tiny, "--gate", "cer=1")
    )
    assert evaluated(tiny, folder, "--baseline", tiny, "--gate", "hyocr-core:cer=1").exit_code == 0
    data = json.loads(evaluated(tiny, folder, "--metrics", "hyocr-toys:cer", "--json").stdout)
    assert data["model"]["metrics"]["hyocr-toys:cer"]["value"] == 1
    assert data["model"]["cer"] != 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Metric)", "object)", "is no class that derives from hyocr_core.Metric"),
        ("api_version = 1", "", "does not say which plugin API it speaks"),
        ("api_version = 1", "api_version = 9", "it speaks plugin API 9"),
        ("def page", "def pages", "has no method page; rename pages"),
        ('title = "toy"', "", "has no title of one line"),
        ('title = "toy"', 'title = "a\\nb"', "has no title of one line"),
        ('title = "toy"', 'title = "toy"\n    better = "bigger"', "better of its class Toy must be smaller or larger"),
        ('title = "toy"', 'title = "toy"\n    together = "max"', "together of its class Toy must be mean or sum"),
        ('title = "toy"', 'title = "toy"\n    unit = 3', "unit of its class Toy must be a text of one line"),
        ('title = "toy"', 'title = "toy"\n    config_class = dict', "does not derive from hyocr_core.MetricConfig"),
        ('title = "toy"', 'title = "toy"\n    def __init__(self, config): 1 / 0', "cannot start: ZeroDivisionError"),
        ("return 1", "return 1\n    def size(self, reference): return -1", "0.png: its size is -1"),
    ],
)
def test_a_metric_that_does_not_keep_the_contract_is_refused_in_one_line(
    plugins: PluginFolder, tiny: Path, folder: Path, old: str, new: str, message: str
) -> None:
    source = METRIC.format(1)
    assert old in source
    install(plugins, "metrics", "toy", source.replace(old, new, 1) if old != "Metric)" else source.replace(old, new))
    line = refusal(evaluated(tiny, folder, "--metrics", "toy"))
    assert line.startswith("metric toy (hyocr-toys 0.0.1): ")
    assert message in line


def test_a_metric_with_the_name_of_a_column_leaves_that_alone(
    plugins: PluginFolder, tiny: Path, folder: Path, tmp_path: Path
) -> None:
    install_metric(plugins, "-7", name="errors")
    given = ("--baseline", tiny, "--metrics", "errors", "--csv", tmp_path / "pages.csv")
    assert evaluated(tiny, folder, *given).exit_code == 0
    with (tmp_path / "pages.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["metric_errors"], row["baseline_metric_errors"]) for row in rows} == {("-7.0", "-7.0")}
    assert all(int(row["errors"]) >= 0 <= int(row["baseline_errors"]) for row in rows)


def test_a_name_of_hyocrs_own_is_no_metrics(plugins: PluginFolder, tiny: Path, folder: Path) -> None:
    install_metric(plugins, "1", name="kl")
    assert "are figures of hyocr's own; give it another name" in refusal(evaluated(tiny, folder, "--metrics", "kl"))
    assert evaluated(tiny, folder, "--baseline", tiny, "--gate", "kl=1").exit_code == 0


def test_a_metric_that_needs_transcripts_is_of_the_pages_that_have_one(
    plugins: PluginFolder, tiny: Path, folder: Path, tmp_path: Path
) -> None:
    install(plugins, "metrics", "toy", METRIC.format("len(reference)"))
    (folder / "0.txt").unlink()
    shown = evaluated(tiny, folder, "--metrics", "toy", "--csv", tmp_path / "pages.csv", "--json")
    assert shown.exit_code == 0, shown.output
    result = EvalResult.model_validate_json(shown.stdout)
    lengths = [len(page.reference) for page in result.pages if page.reference is not None]
    assert [page.metrics.get("toy") is None for page in result.pages] == [True, False, False, False]
    assert result.model.metrics["toy"].value == sum(lengths) / 3
    with (tmp_path / "pages.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["toy"] == "" for row in rows] == [row["errors"] == "" for row in rows] == [True, False, False, False]


def test_a_metric_that_needs_transcripts_is_refused_where_there_are_none(
    plugins: PluginFolder, tiny: Path, folder: Path
) -> None:
    source = METRIC.format("len(text.rstrip()) + len(reference)")
    install(plugins, "metrics", "toy", source)
    install(plugins, "metrics", "quiet", source.replace("= 1", "= 1\n    needs_reference = False", 1), of="others")
    for page in folder.glob("*.txt"):
        page.unlink()
    assert "no transcript, and none of the 4 pages has one" in refusal(
        evaluated(tiny, folder, "--baseline", tiny, "--metrics", "toy")
    )
    data = json.loads(evaluated(tiny, folder, "--baseline", tiny, "--metrics", "quiet", "--json").stdout)
    assert [page["metrics"]["quiet"] for page in data["pages"]] == [len(page["text"]) for page in data["pages"]]
    assert data["model"]["cer"] is None


TABLE = "<table><tr><td>a</td><td>b</td></tr></table>"


@pytest.fixture
def parts_installed() -> None:
    """The libraries of the extra `documents`."""
    for library in ("apted", "lxml", "scipy"):
        pytest.importorskip(library)


def test_metrics_of_parts_are_measured_where_they_are_named(
    parts_installed: None, tiny: Path, by_rtn: Path, folder: Path
) -> None:
    for page in (1, 3):
        (folder / f"{page}.txt").write_text(TABLE, encoding="utf-8")
    (folder / "0.txt").write_text(r"$$\frac{a}{b}$$", encoding="utf-8")
    given = ("--baseline", tiny, "--metrics", "teds,formula", "--gate", "teds=1", "--json")
    shown = evaluated(by_rtn, folder, *given)
    assert shown.exit_code == 0, shown.output
    data = json.loads(shown.stdout)
    assert data["metrics"].keys() == {"teds", "formula"}
    assert data["metrics"]["teds"]["distribution"] == "hyocr-core"
    assert data["model"]["metrics"]["teds"]["value"] == 0
    assert [list(page["metrics"]) for page in data["pages"]] == [["formula"], ["teds"], [], ["teds"]]
    assert "teds" not in json.loads(evaluated(by_rtn, folder, "--json").stdout)["metrics"]


def test_a_transcript_that_a_metric_cannot_use_is_refused_before_reading(
    parts_installed: None, tiny: Path, folder: Path
) -> None:
    (folder / "2.txt").write_text("<table>words", encoding="utf-8")
    result = evaluated(tiny, folder, "--metrics", "teds")
    line = refusal(result)
    assert line.startswith("metric teds (hyocr-core ")
    assert "2.png: its transcript has a table without a row: mend it" in line
    again = evaluated(tiny, folder)
    assert again.exit_code == 0, again.output
    assert "kept from an interrupted run" not in again.stderr


def test_a_metric_whose_library_is_missing_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, folder: Path
) -> None:
    monkeypatch.setitem(sys.modules, "apted", None)
    line = refusal(evaluated(tiny, folder, "--metrics", "teds"))
    assert line.startswith("metric teds (hyocr-core ")
    assert line.endswith(": needs apted: pip install 'hyocr-core[documents]'")
