"""What ended in a traceback once, each kind of it: now a line, or no fault at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from hyocr_core.checkpoint.sealed import seal, unseal
from tests.fuzz.served import Served
from tests.fuzz.trial import Ended, addressed, copied, run
from tests.fuzz.world import ANSWERS, EVAL, GPTQ, QUANT, READ, REMOTE, RTN

pytestmark = pytest.mark.needs_methods

DEEP = '{"a":' * 5_000 + "1" + "}" * 5_000
EVALUATION = "int4/report/evaluations/*/eval.json"
JOURNAL = ".out.hyocr-partial/journal.json"
BATCH = "state/*/batch-000000.json"
RESUME = (*ANSWERS, "--output", "out", "--resume")
ODD_NAMES = ("a[/b0].png", "[red]x.png", "\udcff\udcfe.png", "a\x1b[31m.png", "a\nb.png", ":train:.png")


@pytest.fixture
def here(world: Path) -> Iterator[Path]:
    with copied(world) as folder:
        yield folder


def sound(ended: Ended, code: int, words: str = "") -> bool:
    """Whether a command ended with this code, as a command may end, and said this."""
    assert ended.fault is None
    assert ended.code == code, ended.said
    assert words in " ".join(ended.said.split()), ended.said
    return True


def edit(folder: Path, name: str, change: Callable[[Any], Any], *, sealed: bool = False) -> None:
    """Change the JSON in a file; sealed: with a digest that fits."""
    [path] = folder.glob(name)
    before = unseal(path.read_bytes()) if sealed else json.loads(path.read_bytes())
    after = change(before)
    path.write_bytes(seal(after) if sealed else json.dumps(after).encode())


def test_a_card_of_the_base_model_that_cannot_be_read_costs_no_work(here: Path) -> None:
    """Further cards are in tests/report/test_card.py."""
    (here / "model" / "README.md").write_text("---\nlicense: [\n---\n# A model\n", encoding="utf-8")
    assert sound(run(RTN, here), 0)
    assert "library_name: transformers" in (here / "new" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("method", ["rtn", "gptq", "awq", "fp8"])
def test_a_row_of_huge_weights_is_no_traceback(here: Path, method: str) -> None:
    path = here / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][:1] = 1e30
    save_file(tensors, path, {"format": "pt"})
    pages = () if method == "rtn" else ("--calib", "synthetic:2")
    ended = run((*QUANT, "--method", method, *pages), here)
    assert ended.fault is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "[/b]", [1], None])
def test_a_metric_that_is_no_number(here: Path, value: object) -> None:
    edit(here, EVALUATION, lambda whole: whole | {"model": whole["model"] | {"cer": [value]}})
    for command in (("report", "int4"), ("compare", "int4", "int8")):
        assert sound(run(command, here), 2, "eval.json: ")


def test_a_metric_that_looks_like_markup(here: Path) -> None:
    def name(whole: Any) -> Any:
        metric = {"title": "[/b]", "unit": "[/i]", "better": "larger", "distribution": "x", "version": "1"}
        measured = {"[/b]": {"value": 1.0, "interval": None}}
        pages = [page | {"metrics": {"[/b]": 1.0}} for page in whole["pages"]]
        score = whole["model"] | {"metrics": measured}
        return whole | {"metrics": {"[/b]": metric}, "model": score, "pages": pages}

    for checkpoint in ("int4", "int8"):
        edit(here, EVALUATION.replace("int4", checkpoint), name)
    assert sound(run(("compare", "int4", "int8"), here), 0, "[/b]")
    assert sound(run(("report", "int4", "--compare", "int8"), here), 0)


@pytest.mark.parametrize(
    ("file", "command", "code"),
    [
        ("int4/hyocr_report.json", ("report", "int4"), 2),
        ("int4/hyocr_report.json", ("verify", "int4"), 1),
        (EVALUATION, ("compare", "int4", "int8"), 2),
        ("int4/report/commands.json", ("report", "int4"), 2),
        ("int4/report/run.json", (*READ, "-o", "bits=4", "--output", "int4", "--resume"), 2),
        (JOURNAL, RESUME, 2),
        (BATCH, (*EVAL, "--state", "state"), 0),
        ("cache/hyocr/answers/*/*.json", ANSWERS, 0),
        ("model/config.json", (*RTN, "--dry-run"), 2),
        ("model/generation_config.json", (*RTN, "--dry-run"), 2),
        ("sharded/model.safetensors.index.json", (*RTN, "--dry-run", "--model", "sharded"), 2),
        ("data.jsonl", (*GPTQ[:-1], "data.jsonl", "--dry-run"), 2),
        ("run.yaml", ("quant", "-c", "run.yaml"), 2),
    ],
)
def test_json_that_is_nested_deeply(here: Path, file: str, command: tuple[str, ...], code: int) -> None:
    path = min(here.glob(file))
    path.write_text(DEEP, encoding="utf-8")
    assert sound(run(command, here), code, path.name if code else "")


@pytest.mark.parametrize("name", ["models", "completion", "400-completion", "500-completion"])
def test_an_endpoint_that_answers_with_deeply_nested_json(here: Path, server: Served, name: str) -> None:
    server.folder = here / "served"
    for path in server.folder.glob(f"{name.removeprefix('400-').removeprefix('500-')}.json"):
        path.unlink()
    (server.folder / f"{name}.json").write_text(DEEP, encoding="utf-8")
    ended = run(addressed(REMOTE, server), here)
    assert sound(ended, 2 if name == "models" else 1)


@pytest.mark.parametrize(
    "entry",
    [
        {"blocks": []},
        {"blocks": {"block-00000": 7}},
        {"blocks": {"block-00000": {"layers": {}, "bytes": "x", "rescaled": 1, "sha256": None}}},
        {"inputs": {"inputs/00000.safetensors": 7}},
        {"pages": ["x"]},
        {"embedded": "two"},
        {"prepared": 7},
        [],
        7,
        None,
    ],
)
def test_a_journal_with_entries_of_another_type(here: Path, entry: Any) -> None:
    def spoil(whole: Any) -> Any:
        return whole | {"record": whole["record"] | entry if isinstance(entry, dict) else entry}

    edit(here, JOURNAL, spoil, sealed=True)
    assert sound(run(RESUME, here), 2, "is unreadable; --fresh starts again")


@pytest.mark.parametrize("key", ["fingerprint", "record", "format"])
@pytest.mark.parametrize("value", [None, [], "x"])
def test_a_journal_of_another_shape(here: Path, key: str, value: object) -> None:
    edit(here, JOURNAL, lambda whole: whole | {key: value}, sealed=True)
    assert sound(run(RESUME, here), 2, "cannot resume")


@pytest.mark.parametrize(
    "change",
    [
        {"pages": [0, 1, 2]},
        {"pages": [0]},
        {"pages": []},
        {"readings": {}},
        {"readings": {"model": {"answers": [], "seconds": 1.0, "first_token": None}}},
        {"gaps": {"model": []}},
        {"gaps": {"model": [{"tokens": 0, "agreeing": 0, "kl": 0.0}] * 2}},
    ],
)
def test_kept_pages_with_counts_that_do_not_fit_are_read_again(here: Path, change: dict[str, Any]) -> None:
    edit(here, BATCH, lambda whole: whole | change, sealed=True)
    assert sound(run((*EVAL, "--state", "state"), here), 0)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_kept_pages_that_took_no_time_are_read_again(here: Path, seconds: float) -> None:
    def spoil(whole: Any) -> Any:
        return whole | {"readings": {"model": whole["readings"]["model"] | {"seconds": seconds}}}

    edit(here, BATCH, spoil, sealed=True)
    assert sound(run((*EVAL, "--state", "state"), here), 0, "is damaged: its pages are read again")


@pytest.mark.parametrize("end", ["<eos>", "7", [1, "x"], -1, 1.5, {"a": 1}, 2**63])
@pytest.mark.parametrize("file", ["generation_config", "config"])
def test_an_end_that_is_no_token(here: Path, file: str, end: object) -> None:
    def spoil(whole: Any) -> Any:
        inside = {"text_config": whole["text_config"] | {"eos_token_id": end}} if file == "config" else {}
        return whole | {"eos_token_id": end} | inside

    (here / "model" / "generation_config.json").write_text("{}", encoding="utf-8")
    edit(here, f"model/{file}.json", spoil)
    for command in (EVAL, (*RTN, "--eval", "synthetic:1", "--dry-run")):
        assert run(command, here).fault is None


@pytest.mark.parametrize(
    "text",
    [
        "!!float _",
        "!!int _",
        "!!timestamp x",
        "!!binary x",
        "!!set [1]",
        "!!omap x",
        "&a [*a]",
        '"\\0"',
        '"\\ud800"',
        "0x" + "f" * 9000,
    ],
)
@pytest.mark.parametrize("command", [("quant", "-c"), ("eval", "-c"), ("sweep",)])
def test_yaml_that_its_reader_stumbles_over(here: Path, command: tuple[str, ...], text: str) -> None:
    (here / "odd.yaml").write_text(f"model: model\nseed: {text}\n", encoding="utf-8")
    assert sound(run((*command, "odd.yaml"), here), 2, "odd.yaml")


@pytest.mark.parametrize("text", ["!!float _", "0x" + "f" * 9000, "[" * 500])
def test_an_option_that_the_reader_of_yaml_stumbles_over(here: Path, text: str) -> None:
    assert sound(run((*RTN, "-o", f"bits={text}"), here), 2)


@pytest.mark.parametrize("name", ["a" * 300, "é" * 130, "\ud800", "a\0", "sub/a"])
def test_a_shard_whose_name_no_file_has(here: Path, name: str) -> None:
    def spoil(whole: Any) -> Any:
        return {"weight_map": dict.fromkeys(whole["weight_map"], f"{name}.safetensors")}

    edit(here, "sharded/model.safetensors.index.json", spoil)
    assert sound(run((*RTN, "--dry-run", "--model", "sharded"), here), 2, "model.safetensors.index.json")


@pytest.mark.parametrize("length", [250, 5_000])
@pytest.mark.parametrize(
    "command",
    [
        (*RTN, "--output"),
        (*RTN, "--dry-run", "--output"),
        (*RTN, "--dry-run", "--model"),
        (*GPTQ[:-1],),
        ("quant", "-c"),
        ("eval", "model", "--data"),
        (*EVAL, "--csv"),
        (*EVAL, "--state"),
        ("verify",),
        ("verify", "int4", "--original"),
        ("report",),
        ("report", "int4", "--output"),
        ("compare", "int4"),
        ("sweep",),
        ("methods", "new"),
        ("methods", "new", "mine", "--output"),
        ("methods", "show"),
        ("push",),
    ],
    ids=" ".join,
)
def test_a_name_that_is_too_long(here: Path, command: tuple[str, ...], length: int) -> None:
    arguments = (*command, "a" * length, *(["x/y"] if command == ("push",) else []))
    ended = run(arguments, here)
    assert ended.fault is None
    assert ended.code == 2 or length == 250


def test_pages_whose_names_are_no_text_or_look_like_markup(here: Path, server: Served) -> None:
    server.folder = here / "served"
    for number, name in enumerate(ODD_NAMES):
        page = here / "odd" / name
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_bytes((here / "page.png").read_bytes())
        page.with_suffix(".txt").write_text(f"Invoice {number}", encoding="utf-8")
    assert sound(run((*GPTQ[:-1], "odd"), here), 0)
    read = ("eval", "int4", "--data", "odd", "--max-new-tokens", "2", "--csv", "x.csv", "--json", "--record")
    assert sound(run((*read, "--keep-duplicates"), here), 0)
    assert sound(run(("report", "int4"), here), 0)
    (here / "served" / "completion.json").write_text("{}", encoding="utf-8")
    assert sound(run(addressed((*REMOTE[:-1], "odd"), server), here), 1)
    (here / "odd" / ODD_NAMES[0]).write_bytes(b"x")
    assert sound(run((*GPTQ[:-1], "odd", "--output", "other"), here), 2, f"samples cannot be used: {ODD_NAMES[0]}: ")


def test_the_world_is_sound(world: Path) -> None:
    """In one that no command takes nothing would be found."""
    with copied(world) as folder:
        for command in (("report", "int4"), ("compare", "int4", "int8"), ("verify", "int4", "--original", "model")):
            assert sound(run(command, folder), 0)
