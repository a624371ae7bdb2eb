"""The model card: what it says, what it carries over, and that its commands work."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from markdown_it.token import Token

from hyocr_core.checkpoint.quant_report import GateFigure, GateRecord, MetricRecord, read_report
from hyocr_core.errors import CheckpointError
from hyocr_core.evaluation.recorded.evidence import gather
from hyocr_core.evaluation.recorded.summary import summarize
from hyocr_core.pages.prompts import DEFAULT_PROMPT
from hyocr_core.report.card import CARRIED, model_card, record_numbers
from hyocr_core.report.card_again import check_card, write_card
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.settings.shared import Gate
from tests.report import built

pytestmark = pytest.mark.needs_methods

LICENCE = {"license": "other", "license_name": "tencent-hunyuan", "license_link": "LICENSE"}


@pytest.fixture
def quantized(demo: Path, calib: str, tmp_path: Path) -> Callable[..., Path]:
    def make(method: str, model: str = str(demo), **options: Any) -> Path:
        output = tmp_path / "HunyuanOCR small"
        run = RunConfig(
            model=model, output=output, method=method, options=options, calib=calib, num_samples=3, device="cpu"
        )
        quantize(run)
        return output

    return make


def python_block(card: str) -> str:
    """What loads it in Transformers."""
    (found,) = (text for text in re.findall(r"```python\n(.*?)\n```", card, re.DOTALL) if "transformers" in text)
    return str(found)


def test_the_card_names_the_base_model_on_the_hub(
    quantized: Callable[..., Path], hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub_cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = quantized("gptq", "tencent/HunyuanOCR", group_size=64)
    card = ModelCard.load(folder / "README.md")
    assert (card.data.base_model, card.data.base_model_relation) == ("tencent/HunyuanOCR", "quantized")
    assert {"hyocr", "gptq"} <= set(card.data.tags or ())
    assert "revision `0123456789abcdef0123456789abcdef01234567`" in card.text
    assert '"group_size": 64' in card.text
    assert "| calibration | 3 pages, " in card.text
    revision = "0123456789abcdef0123456789abcdef01234567"
    own = "hyocr eval 'HunyuanOCR small' --data your-pages/"
    assert f"{own} --baseline tencent/HunyuanOCR@{revision}" in card.text


@pytest.mark.parametrize("said", [{}, {"repetition_penalty": 1.03}], ids=["no penalty", "that of v1.0"])
def test_the_requests_of_the_card_are_those_of_the_official_clients(
    quantized: Callable[..., Path], demo: Path, tmp_path: Path, said: dict[str, float]
) -> None:
    """What `curl` and `openai` are given, for a page that is too large for an argument."""
    model = shutil.copytree(demo, tmp_path / "model")
    config = model / "generation_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | said))
    card = (quantized("rtn", str(model)) / "README.md").read_text(encoding="utf-8")
    assert "vllm serve 'HunyuanOCR small'\n" in card
    assert "pip install 'vllm>=0.33' 'transformers>=5.20.1,<5.21'" in card
    page = b"\x89PNG" * 60000
    (tmp_path / "page.png").write_bytes(page)
    (tmp_path / "curl").write_text("#!/bin/sh\ncat\n")
    (tmp_path / "curl").chmod(0o755)
    (tmp_path / "openai.py").write_text(
        "import json\nfrom types import SimpleNamespace as Space\n"
        "def create(extra_body, **body):\n"
        "    message = Space(content=json.dumps(body | extra_body))\n"
        "    return Space(choices=[Space(message=message)])\n"
        "def OpenAI(base_url, api_key):\n"
        "    assert base_url == 'http://127.0.0.1:8000/v1'\n"
        "    return Space(chat=Space(completions=Space(create=create)))\n"
    )
    shell, program = (
        next(text for text in re.findall(rf"```{kind}\n(.*?)\n```", card, re.DOTALL) if "127.0.0.1" in text)
        for kind in ("sh", "python")
    )
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for command in (["bash", "-c", shell], [sys.executable, "-c", program]):
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | path, capture_output=True, check=True)
        assert json.loads(done.stdout) == {
            "model": "HunyuanOCR small",
            "temperature": 0,
            "repetition_penalty": said.get("repetition_penalty", 1.0),
            "messages": [
                {"role": "system", "content": ""},
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image_url",
                            "image_url": {"url": f"data:image/png;base64,{base64.b64encode(page).decode()}"},
                        },
                        {"type": "text", "text": DEFAULT_PROMPT},
                    ],
                },
            ],
        }


def test_licence_and_language_are_carried_over_and_nothing_else(
    quantized: Callable[..., Path], demo: Path, tmp_path: Path
) -> None:
    model = tmp_path / "licensed"
    shutil.copytree(demo, model)
    entries = "".join(f"{key}: {value}\n" for key, value in LICENCE.items())
    (model / "README.md").write_text(
        f"---\n{entries}language: [zh, en]\nmetrics: [cer]\n---\n# Base\n", encoding="utf-8"
    )
    text = (quantized("rtn", str(model)) / "README.md").read_text(encoding="utf-8")
    metadata = ModelCard(text).data.to_dict()  # type: ignore[no-untyped-call]
    assert {key: metadata[key] for key in LICENCE} == LICENCE
    assert metadata["language"] == ["zh", "en"]
    assert "metrics" not in metadata
    # A folder is no model of the hub, and no path of this machine belongs into a card.
    assert "base_model" not in metadata
    assert str(tmp_path) not in text
    assert "# Base" not in text


@pytest.mark.parametrize("options", [{"sym": True}, {"sym": False}], ids=["symmetric", "zero points"])
def test_the_transformers_snippet_runs(options: dict[str, bool], quantized: Callable[..., Path]) -> None:
    folder = quantized("rtn", format="compressed-tensors", group_size=64, **options)
    snippet = python_block((folder / "README.md").read_text(encoding="utf-8"))
    assert ("dequantize=True" in snippet) == (not options["sym"])
    code = f"{snippet}\nassert model.num_parameters() > 10**6"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_transformers_does_not_load_has_no_snippet(quantized: Callable[..., Path]) -> None:
    text = (quantized("fp8", format="fp8") / "README.md").read_text(encoding="utf-8")
    assert "from_pretrained" not in text
    assert re.search(r"\| Transformers \| no \| its fp8", text)


def test_a_format_of_a_plugin_is_unsure(quantized: Callable[..., Path], tmp_path: Path) -> None:
    report = read_report(quantized("rtn"))
    text = model_card(report, "x", {"quant_method": "codebook"}, tmp_path / "none", penalty=1.08, from_hub=False)
    assert "| vLLM CPU | unsure | hyocr does not know this kind of codebook checkpoint |" in text
    assert "from_pretrained" not in text
    assert text.count('"repetition_penalty": 1.08') == 2


def test_aliases_of_the_base_models_card_are_not_written_out(tmp_path: Path) -> None:
    """Thirty lines whose merges stand for 9 to the power of 30 values."""
    rounds = (f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 31))
    card = tmp_path / "README.md"
    for lines, carried in (("", True), ("\n".join(["a0: &a0 {x: 1}", *rounds]), False)):
        card.write_text(f"---\nlicense: mit\n{lines}\n---\n# A *model*\n", encoding="utf-8")
        text = model_card(built.quant_report(), "x", {"quant_method": "gptq"}, card, penalty=1.0, from_hub=False)
        assert ("license: mit" in text) == carried


@pytest.mark.parametrize(
    ("head", "carried"),
    [
        (b"license: mit\nlanguage: [zh, en]", {"license": "mit", "language": ["zh", "en"]}),
        (b"license: [", {}),
        (b"license: !!float _", {}),
        (b"license: 2001-01-01\nlicense_name: x", {"license_name": "x"}),
        (b"license: {a: [1]}\nlicense_link: LICENSE", {"license_link": "LICENSE"}),
        (b"language: [zh, 1.5, .nan]", {}),
        (b'license: "\\ud800"', {}),
        (b"license: \xff", {}),
        (b"- license", {}),
        (b"model-index: 7\nlicense: mit", {"license": "mit"}),
        (b"license: " + b"[" * 5_000, {}),
        (b"license: &a [*a]", {}),
    ],
    ids=range(12),
)
def test_only_what_can_be_read_of_the_base_models_card_is_carried(
    tmp_path: Path, head: bytes, carried: dict[str, object]
) -> None:
    base = tmp_path / "README.md"
    base.write_bytes(b"---\n" + head + b"\n---\n# A model\n")
    card = ModelCard(model_card(built.quant_report(), "x", {"quant_method": "gptq"}, base, penalty=1.0, from_hub=False))
    found: dict[str, object] = card.data.to_dict()  # type: ignore[no-untyped-call]
    assert {key: found[key] for key in CARRIED if key in found} == carried
    assert found["library_name"] == "transformers"


def test_what_pages_were_asked_is_recorded_and_said(demo: Path, calib: str, tmp_path: Path) -> None:
    sources = {"model": str(demo), "calib": calib, "num_samples": 3, "eval": "synthetic:2", "eval_samples": 2}
    asked = {"task": "table:en", "system": "Be | brief."}
    run = RunConfig(**sources, **asked, output=tmp_path / "out", method="gptq", device="cpu", max_new_tokens=4)
    report = quantize(run)
    for record in (report.calibration, report.evaluation):
        assert record is not None
        assert {"task": record.task, "system": record.system} == asked
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    (row,) = [line for line in card.splitlines() if line.startswith("| calibration |")]
    assert ', asked table:en, system message "Be \\| brief.", the reference\'s forward |' in row
    assert 'asked table:en, system message "Be \\| brief.", read greedily' in accuracy(card)
    # One that an older hyocr wrote says nothing of it.
    path = tmp_path / "out" / "hyocr_report.json"
    older = json.loads(path.read_text())
    for name in ("calibration", "evaluation"):
        del older[name]["task"], older[name]["system"]
    path.write_text(json.dumps(older))
    found = read_report(tmp_path / "out").calibration
    assert found is not None
    assert (found.task, found.system) == (None, None)


@pytest.fixture(scope="module")
def measured(demo: Path, calib: str, heldout: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that was read before it was published, under a gate of which it fails one bound."""
    output = tmp_path_factory.mktemp("measured") / "small"
    sources = {"model": str(demo), "calib": calib, "num_samples": 3, "eval": heldout, "eval_samples": 8}
    gate = Gate(loops=0, kl=1e-9)
    quantize(RunConfig(**sources, output=output, method="gptq", device="cpu", gate=gate, keep=True))
    return output


def accuracy(card: str) -> str:
    return card.partition("\n## Accuracy\n")[2].partition("\n## ")[0]


def cells(text: str) -> dict[str, list[str]]:
    """Rows of a table by their first cell."""
    plain = text.replace("\xa0", " ")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in plain.splitlines() if line.startswith("|")
    ]
    return {row[0]: row[1:] for row in rows}


def test_the_card_shows_the_measured_numbers_with_runtime_and_data(measured: Path) -> None:
    text = accuracy((measured / "README.md").read_text(encoding="utf-8"))
    numbers = read_report(measured).evaluation
    assert numbers is not None
    assert numbers.baseline is not None
    assert numbers.rounded is not None
    rows = cells(text)
    assert rows[""] == ["CER", "95 % interval", "agreement", "KL", "loops", "weights"]
    assert rows["original"] == ["0.00 %", "0.00 to 31.23", "–", "–", "0", "9.7 MB"]
    for label, score in (("round to nearest (RTN)", numbers.rounded), ("this checkpoint", numbers.model)):
        assert score.kl is not None
        assert rows[label][2:] == ["≥ 68.77 %", f"{score.kl:.2g}", "0", "6.2 MB"]
    assert rows["round to nearest (RTN)"][3] != rows["this checkpoint"][3]
    assert "8 pages of heldout.jsonl" in text
    assert "The CER is +0.00 points from the original's" in text
    assert "Transformers, the reference's forward (original); Transformers on the unpacked weights" in text
    assert "Gate `loops=0,kl=1e-09`: **not held**: kl " in text
    assert str(measured.parent) not in text


def test_the_command_of_the_card_runs(measured: Path, demo: Path, heldout: str, tmp_path: Path) -> None:
    text = accuracy((measured / "README.md").read_text(encoding="utf-8"))
    (command,) = re.findall(r"```sh\n(.*?)\n```", text)
    assert command == "hyocr eval small --data your-pages/ --baseline path/to/checkpoint"
    (tmp_path / "small").symlink_to(measured)
    (tmp_path / "path" / "to").mkdir(parents=True)
    (tmp_path / "path" / "to" / "checkpoint").symlink_to(demo)
    (tmp_path / "your-pages").mkdir()
    shutil.copy(Path(heldout).parent / "images" / "heldout-0000.png", tmp_path / "your-pages")
    program = str(Path(sys.executable).with_name("hyocr"))
    done = subprocess.run([program, *command.split()[1:]], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_card_is_the_same_each_time(measured: Path, demo: Path, calib: str, heldout: str, tmp_path: Path) -> None:
    sources = {"model": str(demo), "calib": calib, "num_samples": 3, "eval": heldout, "eval_samples": 8}
    output = tmp_path / "small"
    gate = {"loops": 0, "kl": 1e-9}
    quantize(RunConfig(**sources, output=output, method="gptq", device="cpu", gate=gate, keep=True))
    assert (output / "README.md").read_bytes() == (measured / "README.md").read_bytes()


def test_a_new_evaluation_takes_the_place_of_the_old_one(measured: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    shutil.copytree(measured, folder)
    card = folder / "README.md"
    card.write_text(card.read_text(encoding="utf-8").replace("# small", "# My own words"), encoding="utf-8")
    before = read_report(folder)
    assert before.evaluation is not None
    numbers = before.evaluation.model_copy(
        update={"data": "other.jsonl", "pages": 77, "baseline": None, "rounded": None, "cer_difference": None}
    )
    gate = GateRecord(accepted=True, figures=(GateFigure(metric="kl", bound=1, value=0.1, passed=True),))
    record_numbers(folder, numbers, gate)
    assert read_report(folder) == before.model_copy(update={"evaluation": numbers, "gate": gate})
    text = card.read_text(encoding="utf-8")
    assert "# My own words" in text
    assert "77 pages of other.jsonl" in text
    assert "heldout" not in text
    assert "rounded to nearest" not in text
    assert "Gate `kl=1`: held." in text
    rest = (measured / "README.md").read_text(encoding="utf-8").partition("## Serve")[2]
    assert text.endswith(rest)


def test_a_verdict_stays_until_there_is_another(measured: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    shutil.copytree(measured, folder)
    before = read_report(folder)
    assert before.evaluation is not None
    record_numbers(folder, before.evaluation, None)
    assert read_report(folder) == before
    assert (folder / "README.md").read_bytes() == (measured / "README.md").read_bytes()


def test_a_card_without_the_heading_is_left_alone(measured: Path, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    shutil.copytree(measured, folder)
    (folder / "README.md").write_text("# Mine\n", encoding="utf-8")
    numbers = read_report(folder).evaluation
    assert numbers is not None
    record_numbers(folder, numbers, None)
    assert (folder / "README.md").read_text(encoding="utf-8") == "# Mine\n"
    (folder / "README.md").unlink()
    record_numbers(folder, numbers, None)
    assert not (folder / "README.md").exists()


def test_numbers_have_no_place_in_what_hyocr_did_not_write(measured: Path, demo: Path) -> None:
    numbers = read_report(measured).evaluation
    assert numbers is not None
    with pytest.raises(CheckpointError, match=r"hyocr_report\.json is missing"):
        record_numbers(demo, numbers, None)


def test_the_card_can_be_had_in_another_language(measured: Path, tmp_path: Path) -> None:
    check_card(tmp_path / "README_zh.md")
    write_card(gather(measured), tmp_path / "README_zh.md", "zh")
    ours, theirs = (path.read_text(encoding="utf-8") for path in (measured / "README.md", tmp_path / "README_zh.md"))
    assert "## 精度" in theirs
    assert "最近舍入（RTN）" in theirs
    blocks = re.compile(r"^---.*?^---$|^```.*?^```$", re.DOTALL | re.MULTILINE)
    assert blocks.findall(theirs) == blocks.findall(ours)
    assert read_report(measured).lang == "en"


def test_a_run_writes_its_card_in_the_language_of_choice(demo: Path, heldout: str, tmp_path: Path) -> None:
    output = tmp_path / "small"
    sources = {"model": str(demo), "eval": heldout, "eval_samples": 2}
    quantize(RunConfig(**sources, output=output, method="rtn", device="cpu", lang="zh"))
    report, card = read_report(output), (output / "README.md").read_text(encoding="utf-8")
    assert report.lang == "zh"
    assert report.evaluation is not None
    assert report.evaluation.verdict is not None
    assert "points on 2 pages, too few to say what was lost" in report.evaluation.verdict.text
    assert "个百分点，只读了 2 页，不足以说明损失了什么。" in card
    assert report.evaluation.verdict.text not in card


EVIL = "<img src=x onerror=alert(1)>|`![a](http://evil)\n# b\x1b[2J\u202e.jsonl"


def test_no_name_is_markup_in_the_card(tmp_path: Path) -> None:
    """As CommonMark with tables and HTML reads it, which is what the hub shows."""
    plain, hostile = (_rendered(tmp_path, name) for name in ("pages.jsonl", EVIL))
    kinds = ["html_block", "html_inline", "image", "link_open", "heading_open", "tr_open", "td_open", "fence"]
    for kind in kinds:
        assert [token.type for token in hostile].count(kind) == [token.type for token in plain].count(kind), kind
    assert not [token for token in hostile if token.type.startswith("html") or token.type == "image"]
    text = " ".join(token.content for token in hostile if token.type in ("text", "code_inline"))
    assert "<img src=x onerror=alert(1)>|" in text
    assert "\x1b" not in "".join(token.content for token in hostile)
    assert "\u202e" not in "".join(token.content for token in hostile)


def _rendered(folder: Path, name: str) -> list[Token]:
    """The tokens of a card in which everything that comes from outside has this name."""
    report = built.quant_report()
    assert report.calibration is not None
    calibration = report.calibration.model_copy(update={"source": name, "system": name})
    numbers = summarize(built.evaluation(built.some_pages(4), system=name), name)
    metrics = {"m": MetricRecord(title=name, unit=name, better="smaller", distribution=name, version=name)}
    gate = GateRecord(accepted=False, figures=(GateFigure(metric=name, bound=1, value=2, passed=False),))
    changes: dict[str, Any] = {
        "calibration": calibration,
        "evaluation": numbers.model_copy(update={"metrics": metrics}),
        "fallbacks": {name: name},
        "gate": gate,
        "model": report.model.model_copy(update={"source": name, "revision": name}),
        "method": report.method.model_copy(update={"name": name, "distribution": name, "version": name}),
    }
    config = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
    card = model_card(report.model_copy(update=changes), name, config, folder / "none", penalty=1.0, from_hub=False)
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(ModelCard(card).text)
    return [inner for token in tokens for inner in (token, *(token.children or ()))]
