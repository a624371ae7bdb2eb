"""Sources of other distributions: found by their scheme, checked, and unable to harm a run that does not name them."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from hyocr_core.checkpoint.quant_report import read_report
from hyocr_core.cli.main import main
from hyocr_core.contract.page_source import Record, SourceConfig
from hyocr_core.errors import CalibrationError
from hyocr_core.pages.sources import FORMS, open_source, source_name
from hyocr_core.plugin.schemes import installed_sources, load_source

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

HEAD = """
from PIL import Image
from pydantic import Field
from hyocr_core import CalibrationError, Record, Source, SourceConfig
"""
TOY = (
    HEAD
    + """
class ToyConfig(SourceConfig):
    side: int = Field(64, ge=32, le=512, description="pixels of a side")
    text: str | None = Field(None, description="what is written on every page")

class Toy(Source):
    \"\"\"Grey pages.\"\"\"

    api_version = 1
    config_class = ToyConfig

    def records(self):
        print("listing")
        for index in range(int(self.place)):
            yield Record(f"grey:{index}", None, self.config.text, lambda index=index: self.draw(index))

    def draw(self, index):
        return Image.new("RGB", (self.config.side, 64), (40 * index,) * 3)
"""
)
ODD = HEAD + "class Odd(Source):\n    api_version = 1\n    def records(self):\n        {}\n"


def install(plugins: PluginFolder, name: str, source: str, value: str = "Odd") -> None:
    """Install a source as `hyocr-source-NAME 0.0.1`."""
    (plugins.folder / f"hostile_{name}.py").write_text(source, encoding="utf-8")
    points = {name: f"hostile_{name}:{value}"}
    plugins.metadata(f"hyocr-source-{name}", "0.0.1", points, "a source", group="hyocr.sources")


@pytest.fixture
def toy(plugins: PluginFolder) -> None:
    install(plugins, "toy", TOY, "Toy")


def refusal(spec: str) -> str:
    with pytest.raises(CalibrationError) as caught:
        open_source(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def hyocr(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_the_sources_of_the_core_are_installed() -> None:
    own = [entry for entry in installed_sources() if entry.own]
    assert [entry.name for entry in own] == [
        "folder",
        "hf",
        "jsonl",
        "olmocr-bench",
        "omnidocbench",
        "pdf",
        "synthetic",
    ]
    for entry in own:
        assert load_source(entry.selector).entry == entry


def test_a_source_of_another_distribution_needs_no_change_of_the_core(toy: None) -> None:
    found = open_source("toy:3?side=96&text=a b")
    assert [(record.name, record.answer) for record in found] == [(f"grey:{index}", "a b") for index in range(3)]
    assert [record.open_image().getpixel((0, 0)) for record in found] == [(40 * index,) * 3 for index in range(3)]
    assert found[0].open_image().size == (96, 64)
    mixed = open_source("toy:1,synthetic:1,toy:1")
    assert [record.name for record in mixed] == ["grey:0", "synthetic:0", "grey:0 (source 3)"]


def test_its_options_are_checked_by_its_config(toy: None) -> None:
    who = "source toy (hyocr-source-toy 0.0.1): toy:2"
    assert refusal("toy:2?sid=3") == f"{who}?sid=3: after the ?: sid: unknown key; did you mean side?"
    assert refusal("toy:2?side=9") == f"{who}?side=9: after the ?: side = '9': should be greater than or equal to 32"


def test_reports_name_the_end_of_its_place_and_no_options(toy: None) -> None:
    assert source_name("toy:/home/me/private/3?text=secret,synthetic:2") == "toy:3,synthetic:2"


def test_a_record_of_a_source_that_is_gone_is_still_named() -> None:
    assert source_name("toy:/home/me/private/3") == "3"


@pytest.mark.needs_methods
def test_both_commands_read_with_it(toy: None, demo: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    given = ["--model", str(demo), "--output", str(output), "--calib", "toy:2?text=x", "--keep-duplicates", "--json"]
    result = hyocr("quant", "--method", "gptq", *given)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["calibration"]["source"] == "toy:2"
    assert "listing\n" in result.stderr
    calibration = read_report(output).calibration
    assert calibration is not None
    assert (calibration.source, calibration.samples) == ("toy:2", 2)
    seen = hyocr("eval", str(output), "--data", "toy:2?text=x", "--max-new-tokens", "2", "--json")
    assert seen.exit_code == 0, seen.stderr
    assert len(json.loads(seen.stdout)["pages"]) == 2
    assert "warning: calibration saw 2 of these 2 pages" in seen.stderr


@pytest.mark.needs_methods
def test_its_failure_is_one_line_of_both_commands(plugins: PluginFolder, demo: Path, tmp_path: Path) -> None:
    install(plugins, "odd", ODD.format("raise OSError('no\\nroute')"))
    for arguments in (
        ("quant", "--method", "gptq", "--model", str(demo), "--output", str(tmp_path / "out"), "--calib", "odd:x"),
        ("eval", str(demo), "--data", "odd:x"),
    ):
        result = hyocr(*arguments)
        assert result.exit_code == 2
        assert result.stderr == "hyocr: error: source odd (hyocr-source-odd 0.0.1): odd:x: OSError: no route\n"
    assert list(tmp_path.glob("out*")) == []


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("raise ValueError('the sky fell')", "ValueError: the sky fell"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise CalibrationError('no such shelf')", "no such shelf"),
        ("yield 1 / 0", "ZeroDivisionError: division by zero"),
        ("return None", "TypeError: 'NoneType' object is not iterable"),
        ("return []", "it has no page"),
        ("return ['a.png']", "its records() gave a str, no hyocr_core.Record"),
        ("return [Record(3, None, None, None)]", "the name of a record is a int, no text"),
        ("return [Record('a', b'x', None, None)]", "the question of a record is a bytes, no text"),
        ("return [Record('a', None, '\\ud800', None)]", "the answer of a record holds half a character"),
        ("return [Record('a', None, None, None)] * 2", "2 of its pages are named a"),
    ],
)
def test_a_source_that_lists_no_records_is_refused_by_name(plugins: PluginFolder, body: str, problem: str) -> None:
    install(plugins, "odd", ODD.format(body))
    assert refusal("odd:x?").startswith(f"source odd (hyocr-source-odd 0.0.1): odd:x?: {problem}")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("raise OSError('gone')", "source odd (hyocr-source-odd 0.0.1): OSError: gone"),
        ("raise CalibrationError('is torn')", "is torn"),
        ("return None", "source odd (hyocr-source-odd 0.0.1): open_image gave no RGB image of Pillow, but a NoneType"),
        ("return Image.new('L', (9, 9))", "open_image gave no RGB image of Pillow, but one of mode L"),
    ],
)
def test_a_page_that_it_cannot_open_is_an_unusable_page(plugins: PluginFolder, body: str, problem: str) -> None:
    source = ODD.format("return [Record('a', None, None, self.draw)]") + f"    def draw(self):\n        {body}\n"
    install(plugins, "odd", source)
    (record,) = open_source("odd:x")
    with pytest.raises(CalibrationError, match=re.escape(problem)):
        record.open_image()


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import nowhere_at_all", "importing 'hostile_odd:Odd' failed: ModuleNotFoundError: "),
        ("Odd = 3", "hostile_odd:Odd is no class that derives from hyocr_core.Source"),
        (
            HEAD + "class Odd(Source):\n    def records(self): pass",
            "its class Odd does not say which plugin API it speaks; write api_version = 1",
        ),
        (
            HEAD + "class Odd(Source):\n    api_version = 2\n    def records(self): pass",
            "it speaks plugin API 2, this hyocr-core speaks 1; try: pip install --upgrade hyocr-core",
        ),
        (
            HEAD + "class Odd(Source):\n    api_version = 1\n    def record(self): pass",
            "its class Odd has no method records; rename record",
        ),
        (
            HEAD + "class C(SourceConfig):\n    a: int = 1\nclass Odd(Source):\n    api_version = 1\n"
            "    config_class = C\n    def records(self): pass",
            "the key a of its config class C has no description",
        ),
        (
            HEAD + "class Odd(Source):\n    api_version = 1\n    config_class = dict\n    def records(self): pass",
            "its config class <class 'dict'> does not derive from hyocr_core.SourceConfig",
        ),
    ],
)
def test_a_broken_source_is_refused_by_name(plugins: PluginFolder, source: str, problem: str) -> None:
    install(plugins, "odd", source + "\n")
    assert refusal("odd:x").startswith(f"source odd (hyocr-source-odd 0.0.1): {problem}")


def test_a_broken_neighbour_harms_no_other_source(plugins: PluginFolder, tmp_path: Path) -> None:
    install(plugins, "odd", "import nowhere_at_all\n")
    plugins.metadata("greedy", "1", {"folder": "nowhere:X", "jsonl": "nowhere:X"}, "", group="hyocr.sources")
    (tmp_path / "pages").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "pages" / "a.png")
    assert len(open_source(f"synthetic:2,{tmp_path / 'pages'}")) == 3


def test_a_scheme_that_two_distributions_claim_names_both(toy: None, plugins: PluginFolder) -> None:
    plugins.metadata("other-toys", "3", {"toy": "nowhere:X", "synthetic": "nowhere:X"}, "", group="hyocr.sources")
    said = refusal("toy:3")
    assert said == "the source toy is offered by hyocr-source-toy 0.0.1 and other-toys 3; uninstall all but one"
    assert refusal("synthetic:3").endswith(" and other-toys 3; uninstall all but one")


def test_an_unknown_scheme_lists_what_is_installed(toy: None) -> None:
    assert refusal("toys:3") == f"toys:3: no such file or folder; give {FORMS}; also installed: toy:"


def test_the_documented_source_works(plugins: PluginFolder, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "calibration.md").read_text(encoding="utf-8")
    example = re.search(r"(?ms)^```python\n(.*?)^```", page)
    assert example is not None
    install(plugins, "tar", example[1], "TarSource")
    for name in ("b.png", "a.jpg", "c.txt"):
        path = tmp_path / name
        if name.endswith("txt"):
            path.write_text("no image")
        else:
            Image.new("RGB", (40, 30), "red" if name == "a.jpg" else "lime").save(path)
    with tarfile.open(tmp_path / "scans.tar", "w") as tar:
        for name in ("b.png", "a.jpg", "c.txt"):
            tar.add(tmp_path / name, name)
    found = open_source(f"tar:{tmp_path / 'scans.tar'}?suffix=.png")
    assert [record.name for record in found] == ["scans.tar/b.png"]
    assert found[0].open_image().getpixel((0, 0)) == (0, 255, 0)
    assert len(open_source(f"tar:{tmp_path / 'scans.tar'}?suffix=.jpg")) == 1
    assert source_name(f"tar:{tmp_path / 'scans.tar'}") == "tar:scans.tar"
    assert refusal(f"tar:{tmp_path / 'none.tar'}").startswith("source tar (hyocr-source-tar 0.0.1): ")


def test_the_documentation_names_every_field_of_a_record() -> None:
    page = (Path(__file__).parents[2] / "docs" / "calibration.md").read_text(encoding="utf-8")
    assert [key for key in Record.__dataclass_fields__ if f"| `{key}` |" not in page] == []
    assert SourceConfig.__name__ in page
