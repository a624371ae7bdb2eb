"""What is fuzzed: which file of the world is broken, how, and which commands then read it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import torch
from hypothesis import strategies as st
from safetensors.torch import load, save

from hyocr_core.checkpoint.sealed import seal, unseal
from hyocr_core.cli.main import main
from tests.fuzz.documents import WORDS, broken, hopeless, json_texts, odd_values, torn
from tests.fuzz.world import ANSWERS, CARD, EVAL, GPTQ, PICTURES, QUANT, READ, REMOTE, ROWS, RTN, SWEEP

Command = tuple[str, ...]
Spoil = Callable[[bytes], st.SearchStrategy[bytes]]

DRY = ("--dry-run",)
VERIFY = (("verify", "int4"), ("verify", "int4", "--original", "model"))


@dataclass(frozen=True)
class Case:
    """Files to write into a copy of the world, by name, and a command to run there; `{url}` is the endpoint's."""

    command: Command
    files: dict[str, bytes] = field(default_factory=dict, repr=False)


Target = Callable[[Path], st.SearchStrategy[Case]]
"""Makes the cases for a world."""


def spoilt(file: str, spoil: Spoil, *commands: Command) -> Target:
    """One file is broken; file: a glob, of which the first counts."""

    def cases(world: Path) -> st.SearchStrategy[Case]:
        path = min(world.glob(file))
        name, contents = str(path.relative_to(world)), spoil(path.read_bytes())
        return st.builds(lambda data, command: Case(command, {name: data}), contents, st.sampled_from(commands))

    return cases


def _json(data: bytes) -> st.SearchStrategy[bytes]:
    return json_texts(json.loads(data))


def _below(key: str) -> Spoil:
    """Only the value of one key is broken."""

    def spoil(data: bytes) -> st.SearchStrategy[bytes]:
        whole = json.loads(data)
        return broken(whole[key]).map(lambda value: json.dumps(whole | {key: value}).encode())

    return spoil


def _sealed(data: bytes) -> st.SearchStrategy[bytes]:
    """What has a digest that fits: nobody damaged it, it is only wrong."""
    content = unseal(data)
    return st.one_of(broken(content).map(seal), broken(content).map(seal), json_texts(json.loads(data)))


def _header(data: bytes) -> st.SearchStrategy[bytes]:
    """The header of a safetensors file, and the file's length."""
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]

    def build(text: bytes, lied: int, tail: bytes) -> bytes:
        return struct.pack("<Q", (len(text) + lied) % 2**64) + text + tail

    lies = st.one_of(st.just(0), st.just(0), st.sampled_from([1, -1, 8, 2**32, 2**63, -(2**31)]))
    tails = st.sampled_from([body, body, body, body[:-1], body + b"\0", b""])
    return st.builds(build, json_texts(header), lies, tails)


def _lines(data: bytes) -> st.SearchStrategy[bytes]:
    rows = st.one_of(*(json_texts(row) for row in ROWS), *(st.just(json.dumps(row).encode()) for row in ROWS))
    return st.lists(rows, min_size=1, max_size=3).map(b"\n".join)


def _yaml(data: bytes) -> st.SearchStrategy[bytes]:
    """JSON is YAML; what is special to YAML comes besides."""
    document = json.loads(data)
    special = st.sampled_from(YAML).map(lambda text: data[:1] + b'"seed": ' + text + b"," + data[1:])
    lines = b"".join(f"{key}: {json.dumps(value)}\n".encode() for key, value in document.items())
    appended = st.sampled_from(YAML).map(lambda text: lines + b"x: " + text + b"\n")
    return st.one_of(json_texts(document), json_texts(document), special, appended, torn(lines))


def _sweep(data: bytes) -> st.SearchStrategy[bytes]:
    """Anything but where it writes."""
    return broken({key: value for key, value in SWEEP.items() if key != "output"}).map(
        lambda value: json.dumps(value | {"output": "swept"} if isinstance(value, dict) else value).encode()
    )


YAML = (
    *(b"!!float _", b"!!int _", b"!!int ''", b"!!timestamp x", b"!!timestamp 2001-99-99", b"!!binary x", b"!!set [1]"),
    *(b"!!omap x", b"!!python/name:os.system", b"!!merge x", b"&a [*a]", b"&a {b: *a}", b"*a", b"!<x> 1", b"!!bool x"),
    *(b"? [1]", b"{? {a: 1} : 2}", b"{[1, 2]: 3}", b".nan", b".inf", b"0x" + b"f" * 9000, b"1" * 9000, b"1_0", b"0o9"),
    *(b"2001-01-01", b"12:30:45", b"12:30:45.", b"1e", b"[" * 300 + b"]" * 300, b"{" * 2000, b"<<: 1", b"{<<: [1]}"),
    *(b"%YAML 9.9", b"\t", b"|9\n", b">-\n", b"'", b'"\\ud800"', b'"\\U00110000"', b'"\\x', b"\x85", b"!!null x"),
    *(b"!!seq {}", b"!!map []", b"!!str {}", b"{a: &x 1, *x : 2}", b"{<<: *x}", b"!!float 1:2:3", b"!!int 1:99", b"-"),
)


def _card(data: bytes) -> st.SearchStrategy[bytes]:
    heads = st.one_of(json_texts(CARD), st.sampled_from(YAML).map(lambda text: b"license: " + text))
    cards = heads.map(lambda head: b"---\n" + head + b"\n---\n# A model\n")
    return st.one_of(cards, torn(data), hopeless())


def _torn(data: bytes) -> st.SearchStrategy[bytes]:
    return torn(data)


def _weights(data: bytes) -> st.SearchStrategy[bytes]:
    """A row, or all, of a tensor has a value that is rare."""
    tensors = load(data)

    def build(name: str, value: float, rows: slice) -> bytes:
        changed = {key: tensor.clone() for key, tensor in tensors.items()}
        changed[name][rows] = value
        return save(changed, {"format": "pt"})

    values = st.sampled_from([1e30, -1e30, 3e38, 1e-30, 0.0, 70_000.0, 1e4, float("nan"), float("inf")])
    rows = st.sampled_from([slice(0, 1), slice(None)])
    return st.builds(build, st.sampled_from(sorted(tensors)), values.filter(_fits_bf16), rows)


def _fits_bf16(value: float) -> bool:
    return not torch.isinf(torch.tensor(value, dtype=torch.bfloat16)) or value == float("inf")


def arguments(world: Path) -> st.SearchStrategy[Case]:
    """Options of every command with values that nobody means."""
    return st.sampled_from(sorted(STARTS)).flatmap(_arguments)


STARTS: dict[str, Command] = {
    "quant": (*RTN, *DRY),
    "verify": ("verify", "int4"),
    "eval": (*REMOTE, "--max-new-tokens", "2"),
    "report": ("report", "int4"),
    "compare": ("compare", "int4", "int8"),
    "sweep": ("sweep", "sweep.yaml"),
    "methods": ("methods",),
    "observers": ("observers",),
}


@st.composite
def _arguments(draw: st.DrawFn, name: str) -> Case:
    with click.Context(main) as context:
        command = main.get_command(context, name)
    assert command is not None
    given = list(STARTS[name])
    if isinstance(command, click.Group):
        given.append(draw(st.sampled_from([*sorted(command.commands), "x"])))
        command = command.commands.get(given[-1], command)
    for _ in range(draw(st.integers(1, 3))):
        parameter = draw(st.sampled_from([each for each in command.params if each.name != "help"]))
        if isinstance(parameter, click.Option):
            given.append(draw(st.sampled_from(parameter.opts)))
        if not (isinstance(parameter, click.Option) and parameter.is_flag):
            given.append(draw(values()))
    return Case(tuple(given))


def values() -> st.SearchStrategy[str]:
    """Arguments as an operating system hands them on; none leads out of the folder."""
    texts = st.one_of(st.sampled_from(WORDS), st.text(max_size=20), st.builds("{}={}".format, _words(), _words()))
    safe = texts.map(lambda text: text.replace("\0", "").replace("/", "").replace("\ud800", "\udc80"))
    known = st.sampled_from([*("a" * 250, "int4", "model", "data.jsonl", "pages", "scan.pdf", "run.yaml", "/dev/null")])
    return st.one_of(safe, known, odd_values().map(repr).map(lambda text: text.replace("/", "")[:300])).filter(
        _is_given
    )


def _words() -> st.SearchStrategy[str]:
    return st.sampled_from([*WORDS, "bits", "group_size", "format", "cer", "*.down_proj:bits", "folder"])


def _is_given(text: str) -> bool:
    """Whether an operating system can hand this on."""
    try:
        return "{" not in text and b"\0" not in text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


def page_names(world: Path) -> st.SearchStrategy[Case]:
    """Names of pages that are no text, or look like markup."""
    picture = (world / "page.png").read_bytes()

    def build(stem: str, command: Command) -> Case:
        return Case(command, {f"pages/{stem}.png": picture})

    stems = values().map(lambda text: text.encode("utf-8", "surrogateescape")[:200].decode("utf-8", "surrogateescape"))
    commands = st.sampled_from([(*GPTQ[:-1], "pages", *DRY), (*REMOTE[:-1], "pages", "--baseline", "{url}")])
    return st.builds(build, stems, commands)


def _targets() -> Iterator[tuple[str, Target]]:
    dry, calibrated = (*RTN, *DRY), (*GPTQ, *DRY)
    yield "safetensors header", spoilt("model/model.safetensors", _header, dry)
    yield "quantized header", spoilt("int4/model.safetensors", _header, *VERIFY)
    yield "index", spoilt("sharded/*.index.json", _json, (*RTN, *DRY, "--model", "sharded"))
    yield "weights", spoilt("model/model.safetensors", _weights, *WEIGHING)
    yield "config", spoilt("model/config.json", _json, dry, calibrated, (*EVAL, "--no-resume"))
    yield "quantized config", spoilt("int4/config.json", _json, *VERIFY)
    yield "quantization_config", spoilt("int4/config.json", _below("quantization_config"), *VERIFY)
    yield "generation config", spoilt("model/generation_config.json", _json, dry, EVAL)
    for name in ("tokenizer", "tokenizer_config", "processor_config", "preprocessor_config"):
        yield name, spoilt(f"model/{name}.json", _json, calibrated, (*EVAL, "--no-resume"))
        yield f"quantized {name}", spoilt(f"int4/{name}.json", _json, VERIFY[1])
    yield "run file", spoilt("run.yaml", _yaml, ("quant", "-c", "run.yaml", *DRY))
    yield "run file of AngelSlim", spoilt("angelslim.yaml", _yaml, ("quant", "-c", "angelslim.yaml", *DRY))
    yield "evaluation file", spoilt("eval.yaml", _yaml, ("eval", "-c", "eval.yaml", "--state", "elsewhere"))
    yield "sweep file", spoilt("sweep.yaml", _sweep, ("sweep", "sweep.yaml"))
    yield "rows", spoilt("data.jsonl", _lines, (*GPTQ[:-1], "data.jsonl", *DRY), (*REMOTE, "--state", "elsewhere"))
    for suffix in PICTURES:
        yield suffix, spoilt(f"pages/page.{suffix}", _torn, (*GPTQ[:-1], "pages", *DRY, "--keep-duplicates"))
    yield "pdf", spoilt("scan.pdf", _torn, (*GPTQ[:-1], "scan.pdf", *DRY))
    shown = (("report", "int4"), ("compare", "int4", "int8"), ("report", "int8", "--compare", "int4"))
    yield "report", spoilt("int4/hyocr_report.json", _json, *shown, *VERIFY)
    yield "evaluation", spoilt("int4/report/evaluations/*/eval.json", _json, *shown)
    yield "commands", spoilt("int4/report/commands.json", _json, *shown)
    yield (
        "settings of a run",
        spoilt("int4/report/run.json", _json, (*READ, "-o", "bits=4", "--output", "int4", "--resume")),
    )
    yield "journal", spoilt(".out.hyocr-partial/journal.json", _sealed, (*ANSWERS, "--output", "out", "--resume"))
    yield "kept pages", spoilt("state/*/batch-000000.json", _sealed, (*EVAL, "--state", "state"))
    yield "kept answers", spoilt("cache/hyocr/answers/*/*.json", _sealed, ANSWERS)
    yield "models of an endpoint", spoilt("served/models.json", _json, REMOTE)
    yield "answers of an endpoint", spoilt("served/completion.json", _json, REMOTE)
    yield "base card", spoilt("model/README.md", _card, RTN)
    yield "arguments", arguments
    yield "names of pages", page_names


WEIGHING = (RTN, GPTQ, (*GPTQ, "--method", "awq"), (*QUANT, "--method", "fp8", "--calib", "synthetic:2"))

TARGETS: dict[str, Target] = dict(_targets())
