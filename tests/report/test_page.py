"""What the page says, and that nothing it is given can make it say or do anything else."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import pytest
from markupsafe import Markup

from hyocr_core.checkpoint.quant_report import GateFigure, GateRecord, ModelRecord
from hyocr_core.errors import CheckpointError, OutputError
from hyocr_core.evaluation.recorded.record_folder import load_run, save_run
from hyocr_core.evaluation.recorded.worst import worst_pages
from hyocr_core.evaluation.scores.result import Comparison
from hyocr_core.report.page import write_page
from hyocr_core.report.plots import Plot
from hyocr_core.report.rendered import TEMPLATES
from tests.report import built

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)> $\\frac{ {{ 7*7 }} \u202e\x00 </svg> &amp; \"'"


class Parsed(HTMLParser):
    """A page's tags and attributes, and its text outside of the style, by the id of what it is in."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._in_style = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        self.text += "" if tag in ("ins", "del", "span", "code") else " "
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        self._in_style &= tag != "style"

    def handle_data(self, data: str) -> None:
        self.text += "" if self._in_style else data

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.tags if attribute in attributes]


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take a second; this leaves their drawing out."""

    def draw(name: str, caption: str, label: str, *_: object) -> Plot:
        return Plot(label, caption, Markup("<svg></svg>"), Markup("<svg></svg>"))

    monkeypatch.setattr("hyocr_core.report.figures.draw", draw)


def parsed(folder: Path) -> Parsed:
    return Parsed(write_page(folder).read_text(encoding="utf-8"))


def plain(text: str) -> str:
    return " ".join(text.replace("\u00a0", " ").split())


COMMANDS = {"quant": "hyocr quant --model /home/someone/secret/m", "eval": "hyocr eval x --data 'a b'"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of which all is known, with its page."""
    folder = tmp_path_factory.mktemp("evidence") / "HunyuanOCR-int4"
    write_page(built.checkpoint(folder, None, built.evaluation(), COMMANDS))
    return folder


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return (folder / "report" / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Parsed:
    return Parsed(html)


def test_the_first_screen_answers_how_much_smaller_how_much_worse_and_where(page: Parsed) -> None:
    text = plain(page.text)
    assert "How much smaller? 1.47× smaller 1.93 GB of weights became 1.31 GB." in text
    assert "How much worse? +0.19 points of CER CER 1.04 % before, 1.23 % now (95 % of the difference: +0.04" in text
    verdict = "1.5× smaller (1.93 GB to 1.31 GB), but it reads worse: CER 1.04 % became 1.23 %, +0.19 points"
    assert text.index(verdict) < text.index("How much smaller?")
    assert "Plain round to nearest (RTN) costs +1.27 points." in text
    assert "99.30 % of next tokens agree" in text
    assert "Where? block 5 of the decoder model.layers.5 is off by 61 %" in text
    assert "In it most of all down_proj: 70 %." in text
    assert text.index("Where?") < text.index("Does it still read?")


def test_a_damaged_block_is_the_first_to_look_at(html: str) -> None:
    ranked = re.search(r'<ol class="ranked">(.*?)</ol>', html, re.DOTALL)
    assert ranked is not None
    names = re.findall(r"<li><code>([^<]*)</code>", ranked[1])
    blocks = sorted(built.evaluation().blocks, key=lambda block: -block.error)
    assert names == [block.name for block in blocks[:5]]
    assert names[0] == "model.layers.5"


@pytest.mark.usefixtures("no_plots")
def test_where_no_block_stands_out_the_page_says_so(tmp_path: Path) -> None:
    result = built.evaluation()
    blocks = (*result.blocks[:5], result.blocks[0].model_copy(update={"name": "model.layers.5", "error": 0.031}))
    text = plain(parsed(built.checkpoint(tmp_path / "x", None, result.model_copy(update={"blocks": blocks}))).text)
    assert "model.layers.5 is off by 3.1 %, 1." in text
    assert "times the median; the others are close." in text


def test_every_plot_says_what_it_shows_and_is_there_for_wide_and_narrow_screens(page: Parsed) -> None:
    plots = ["cer", "cer-difference", "blocks", "kinds", "weights", "inputs", "condition", "parts"]
    labels = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg"]
    assert len(labels) == 2 * len(plots)
    assert sum("gptq 1.23" in label and "round to nearest (RTN) 2.31" in label for label in labels) == 2
    assert len([name for name in page.values("id") if name.startswith("plot-")]) == len(plots)
    assert sum(tag == "caption" for tag, _ in page.tags) == sum(tag == "table" for tag, _ in page.tags) >= 3


@pytest.mark.usefixtures("no_plots")
def test_ratios_of_awq_are_shown(tmp_path: Path) -> None:
    report = built.quant_report()
    layers = tuple(layer.model_copy(update={"metrics": {"ratio": 0.4}}) for layer in report.layers)
    page = parsed(built.checkpoint(tmp_path / "awq", report.model_copy(update={"layers": layers})))
    assert "plot-ratio" in page.values("id")
    assert "plot-condition" not in page.values("id")


def test_ids_are_unique_and_links_lead_somewhere(page: Parsed) -> None:
    ids = page.values("id")
    assert len(set(ids)) == len(ids)
    targets = [value for value in page.values("href") if value.startswith("#")]
    assert len(targets) > 5
    assert {target[1:] for target in targets} <= set(ids)


def test_the_page_needs_nothing_else(page: Parsed, html: str) -> None:
    assert all(value.startswith(("#", "data:")) for value in (*page.values("href"), *page.values("src")))
    assert not {tag for tag, _ in page.tags} & {"script", "iframe", "object", "embed", "form"}
    assert "url(" not in re.sub(r"url\(#", "", html)
    assert "@import" not in html
    (policy,) = [value for value in page.values("content") if "default-src" in value]
    assert policy.startswith("default-src 'none';")
    assert "script-src" not in policy


def test_nothing_that_a_page_holds_is_taken_for_markup(tmp_path: Path, page: Parsed) -> None:
    attacking = built.page(f"{ATTACK}.png", f"one {ATTACK}", f"two {ATTACK} three", ATTACK)
    report = built.quant_report(environment={ATTACK: ATTACK}, ignored=(ATTACK,))
    layers = [report.layers[0].model_copy(update={"name": f"model.layers.0.{ATTACK}", "degraded": ATTACK})]
    result = built.evaluation((attacking,), failures={ATTACK: ATTACK}, layers=(), blocks=(), system=ATTACK)
    hostile = built.checkpoint(tmp_path / "hostile")
    report = report.model_copy(update={"layers": (*layers, *report.layers)})
    built.record(hostile, result, result.model_dump_json())
    (hostile / "hyocr_report.json").write_text(report.model_dump_json(), encoding="utf-8")
    found = parsed(hostile)
    assert {tag for tag, _ in found.tags} <= {tag for tag, _ in page.tags}
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>" in found.text
    assert "{{ 7*7 }} ⟨U+202E⟩" in found.text
    assert "⟨U+0000⟩" in found.text


def test_no_local_path_is_shown_but_in_the_commands(folder: Path, html: str) -> None:
    assert html.count("/home/someone") == 1
    text = plain(Parsed(html).text)
    assert "hyocr quant --model /home/someone/secret/m" in text
    assert "hyocr eval x --data 'a b'" in text
    assert "of heldout.jsonl" in text
    assert "broken.png: is no image" in text
    assert str(folder.parent) not in html


def test_the_same_evidence_gives_the_same_bytes(folder: Path, html: str) -> None:
    first = html.encode()
    with matplotlib.rc_context({"font.size": 40, "svg.fonttype": "path", "axes.grid": True}):
        assert write_page(folder).read_bytes() == first
    script = "import sys, pathlib, hyocr_core.report.page as page; page.write_page(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, env={"PYTHONHASHSEED": "7"})
    assert (folder / "report" / "index.html").read_bytes() == first


def test_the_worst_pages_come_worst_first_with_image_and_differences(html: str) -> None:
    result = built.evaluation()
    names = [result.pages[index].name for index in worst_pages(result)]
    assert re.findall(r"<h3>(invoice[^<]*)</h3>", html) == names
    assert len(names) == 10
    assert html.count('src="data:image/webp;base64,') == 10
    first = html[html.index(f"<h3>{names[0]}</h3>") : html.index(f"<h3>{names[1]}</h3>")]
    changed = re.findall(r"<(ins|del)>([^<]*)</\1>", first)
    assert changed, "the worst page has errors"
    assert "reference" in first
    assert "3 errors" in first


@pytest.mark.usefixtures("no_plots")
def test_evaluations_of_other_pages_are_listed(tmp_path: Path) -> None:
    folder = built.checkpoint(tmp_path / "x", None, built.evaluation(built.some_pages(4)))
    other = built.evaluation(built.some_pages(7, seed=1), data="/home/someone/forms.jsonl")
    built.record(folder, other, other.model_dump_json())
    text = plain(parsed(folder).text)
    assert "It has read 7 pages of forms.jsonl" in text
    assert "Other evaluations that are recorded" in text
    assert "4 of heldout.jsonl" in text


@pytest.mark.usefixtures("no_plots")
def test_replaced_inserted_and_deleted_differ_in_form_too(tmp_path: Path) -> None:
    page = built.page("a.png", "Total 12.50 EUR", "Totals 12.5O EU", "Total 12.50 EUR")
    html = write_page(built.checkpoint(tmp_path / "x", None, built.evaluation((page,)))).read_text(encoding="utf-8")
    (text,) = re.findall(r'aria-label="gptq against the reference">(.*?)</dd>', html)
    assert text == 'Total<ins>s</ins> 12.5<span class="swap"><del>0</del><ins>O</ins></span> EU<del>R</del>'
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    assert re.search(r"^ins \{.*text-decoration: underline", style, re.MULTILINE)
    assert re.search(r"^del \{.*text-decoration: line-through", style, re.MULTILINE)


@pytest.mark.usefixtures("no_plots")
def test_a_page_without_an_image_or_a_reference_is_shown(tmp_path: Path) -> None:
    page = built.page("a.png", "abc", "abd", "abc").model_copy(
        update={"reference": None, "errors": None, "baseline_errors": None, "cer": None}
    )
    rates = ("cer", "page_cer", "wer", "page_wer")
    of_transcripts = (*rates, *(f"{rate}_interval" for rate in rates), "edit_distance", "exact_match", "length_ratio")
    score = built.score(0.01).model_copy(update=dict.fromkeys(of_transcripts))
    scores = {"model": score, "baseline": score}
    compared = built.evaluation().comparison
    assert compared is not None
    compared = compared.model_copy(update={"cer_difference": None, "cer_difference_interval": None})
    folder = built.checkpoint(
        tmp_path / "x",
        None,
        built.evaluation((page,), **scores, comparison=compared, rounded=None, rounded_comparison=None),
    )
    (built.images(folder) / "00000.webp").unlink()
    found = parsed(folder)
    assert "img" not in {tag for tag, _ in found.tags}
    assert "plot-cer" not in found.values("id")
    assert "How much worse? 99.30 % of next tokens agree" in plain(found.text)
    assert "gptq against the baseline" in found.values("aria-label")


@pytest.mark.usefixtures("no_plots")
def test_an_endpoint_without_sizes_tokens_and_blocks_is_shown(tmp_path: Path) -> None:
    served = built.score(0.01, runtime="endpoint", weight_bytes=None, part_bytes={}, first_token_seconds=None)
    compared = Comparison(
        cer_difference=0.0, cer_difference_interval=(-0.001, 0.001), identical_pages=40, length_ratio=1.0,
        tokens=None, agreement=None, kl=None,
    )  # fmt: skip
    result = built.evaluation(
        model=served, baseline=served, comparison=compared, rounded=None, rounded_comparison=None, blocks=(), layers=()
    )
    text = plain(parsed(built.checkpoint(tmp_path / "x", None, result)).text)
    assert "No measurable loss: " in text
    assert "(95 %: −0.10 to +0.10)" in text
    assert "By the method’s own measure of its layers (calibration error)" in text
    assert "Next-token agreement" not in text
    assert "all weights 1.93 GB 1.31 GB" in text


@pytest.mark.usefixtures("no_plots")
def test_without_a_baseline_the_error_rate_stands_alone(tmp_path: Path) -> None:
    result = built.evaluation(
        baseline=None, comparison=None, rounded=None, rounded_comparison=None, blocks=(), layers=()
    )
    text = plain(parsed(built.checkpoint(tmp_path / "x", None, result)).text)
    assert "How much worse? 1.23 % CER There is no baseline to compare with" in text


def test_without_an_evaluation_the_page_says_how_to_get_one(tmp_path: Path) -> None:
    found = parsed(built.checkpoint(tmp_path / "HunyuanOCR int4"))
    text = plain(found.text)
    own = f"hyocr eval '{tmp_path}/HunyuanOCR int4' --data your-pages/"
    assert f"{own} --baseline tencent/HunyuanOCR@0123456789abcdef --record" in text
    assert "How much worse? unknown" in text
    worst = max(built.quant_report().layers, key=lambda layer: layer.metrics["output_error"]).name
    assert "plot-blocks" in found.values("id")
    assert worst.rpartition(".")[2] in text
    assert "plot-weights" not in found.values("id")


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("there", [True, False])
def test_the_command_names_a_local_original_where_it_lies(there: bool, tmp_path: Path) -> None:
    local = built.quant_report(model=ModelRecord(source="original", revision=None, sha256={"model": "ab"}))
    folder = built.checkpoint(tmp_path / "int4", local)
    original = tmp_path / "my models" / "original"
    if there:
        original.mkdir(parents=True)
    save_run(folder, {"model": "original"}, original)
    assert load_run(folder) == {"model": "original"}
    named = f"'{original}'" if there else "path/to/original"
    assert f"hyocr eval {folder} --data your-pages/ --baseline {named} --record" in plain(parsed(folder).text)


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize(("accepted", "said"), [(True, "✓ The gate has accepted it"), (False, "✗ The gate has not")])
def test_the_gates_verdict(tmp_path: Path, accepted: bool, said: str) -> None:
    figures = (
        GateFigure(metric="cer", bound=0.5, value=0.19, passed=True, unit="points"),
        GateFigure(metric="loops", bound=0, value=1, passed=accepted, unit="pages"),
    )
    gate = GateRecord(accepted=accepted, figures=figures)
    folder = built.checkpoint(tmp_path / "x", built.quant_report(gate=gate), built.evaluation())
    text = plain(parsed(folder).text)
    assert said in text
    assert "✓ cer 0.19 (at most 0.5 points)" in text
    assert f"{'✓' if accepted else '✗'} loops 1 (at most 0 pages)" in text


@pytest.mark.usefixtures("no_plots")
def test_what_pages_were_asked_is_said_where_it_is_not_the_default(tmp_path: Path, page: Parsed) -> None:
    report = built.quant_report()
    assert report.calibration is not None
    calibration = report.calibration.model_copy(update={"task": "table:en", "system": "Be\nbrief."})
    result = built.evaluation(task="formula", system="Be\nexact.")
    folder = built.checkpoint(tmp_path, report.model_copy(update={"calibration": calibration}), result)
    text = plain(parsed(folder).text)
    assert 'of heldout.jsonl, asked formula, system message "Be\\nexact.", read greedily' in text
    assert "task table:en system message Be brief." in text
    assert "asked" not in plain(page.text)
    assert "system message" not in page.text


@pytest.mark.usefixtures("no_plots")
def test_layers_that_fell_back_are_named(tmp_path: Path) -> None:
    report = built.quant_report()
    layers = (report.layers[0].model_copy(update={"degraded": "rounded to nearest"}), *report.layers[1:])
    text = plain(parsed(built.checkpoint(tmp_path / "x", report.model_copy(update={"layers": layers}))).text)
    assert "1 layer fell back to a poorer way" in text
    assert "model.layers.0.self_attn.q_proj rounded to nearest" in text


def test_other_quantizations_stand_beside_it(folder: Path, tmp_path: Path) -> None:
    fp8 = built.score(0.0108, weight_bytes=1_512_000_000)
    other = built.checkpoint(tmp_path / "HunyuanOCR-fp8", None, built.evaluation(model=fp8))
    html = write_page(folder, [other], output=tmp_path / "beside.html").read_text(encoding="utf-8")
    page = Parsed(html)
    assert "plot-beside" in page.values("id")
    (label, _) = [value for value in page.values("aria-label") if value.startswith("Size against")]
    assert "HunyuanOCR-fp8: 1512.0 MB, 1.08 %" in label
    assert '<tr class="ours"><th scope="row">HunyuanOCR-int4' in html


def test_the_page_goes_where_it_is_asked_to(folder: Path, html: str, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.html"
    assert write_page(folder, output=target) == target
    assert target.read_bytes() == html.encode()
    assert list(tmp_path.glob(".*")) == []
    with pytest.raises(OutputError, match=r"none/x\.html"):
        write_page(folder, output=tmp_path / "none" / "x.html")


def test_only_what_hyocr_wrote_has_a_report(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        write_page(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"has no hyocr_report\.json"):
        write_page(tmp_path)


def _colours(css: str) -> dict[str, tuple[float, ...]]:
    found = re.findall(r"--([a-z0-9-]+): #([0-9a-f]{6});", css)
    return {name: tuple(int(value[start : start + 2], 16) / 255 for start in (0, 2, 4)) for name, value in found}


def _luminance(colour: tuple[float, ...]) -> float:
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag_aa_and_marks_that_of_graphics(theme: str) -> None:
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    light, dark = style.split("prefers-color-scheme: dark", 1)
    colours = _colours(light if theme == "light" else dark)
    texts = [(text, back) for text in ("ink", "muted", "model", "good", "bad") for back in ("paper", "card")]
    texts += [("insert", "insert-back"), ("delete", "delete-back"), ("ink", "good-back"), ("ink", "bad-back")]
    texts += [("muted", "good-back"), ("muted", "bad-back")]
    for text, back in texts:
        assert _contrast(colours[text], colours[back]) >= 4.5, (text, back)
    for mark in ("baseline", "rounded", "model", "worst"):
        assert _contrast(colours[mark], colours["paper"]) >= 3, mark
