"""No command breaks a word in a table, as narrow as a terminal usually is."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.table import Table

from hyocr_core.cli.main import COMMANDS, main
from hyocr_core.terminal.console import PlainConsole
from hyocr_core.terminal.evaluation_table import eval_table
from hyocr_core.terminal.fitting_tables import fitted
from hyocr_core.terminal.quantization_table import layer_table
from hyocr_core.verification.verdict import LayerMatch, RuntimeRecord, runtime_table
from hyocr_core.verification.verdict import layer_table as match_table
from tests.report import built

WIDTH = 80
LONG = "model.layers.23.self_attn.q_proj"

TYPED: dict[str, tuple[tuple[str, ...], ...]] = {
    "methods": ((), ("check",), ("show", "gptq"), ("show", "awq"), ("show", "fp8")),
    "observers": ((), ("dump-stats",)),
    "doctor": ((),),
    "compare": (("{one}", "{two}"),),
    "sweep": (("--dry-run", "{sweep}"),),
}
"""Commands that are quick enough to be typed; {one}, {two} are evaluated checkpoints, {sweep} a file."""

DRAWN: dict[str, Callable[[], Iterator[Table]]] = {
    "quant": lambda: (layer_table(built.quant_report().layers, whole=whole) for whole in (True, False)),
    "eval": lambda: iter([eval_table(built.evaluation())]),
    "verify": lambda: iter(
        [
            match_table([LayerMatch(name=LONG, shape=(2048, 1024), sqnr_db=20.5, least_db=15)] * 2),
            runtime_table([RuntimeRecord(name="Transformers", loads="unsure", why="word " * 40)] * 3),
        ]
    ),
}
"""Tables of commands that take a model and minutes."""

WITHOUT = {"report", "push", "read"}
"""They print lines; the two texts of `read --beside` share the width, and are text."""


def words(text: str) -> set[str]:
    """What may be torn apart nowhere; a hyphen is a good place for that."""
    return set(re.split(r"[\s-]+", text))


def test_every_command_of_the_core_is_looked_at() -> None:
    known = {*TYPED, *DRAWN, *WITHOUT}
    assert known <= set(COMMANDS)
    own_tests = {"search", "bench"}
    assert set(COMMANDS) <= known | own_tests


@pytest.fixture
def places(tmp_path: Path, demo: Path) -> dict[str, str]:
    for name in ("HunyuanOCR-gptq-group_size=64-ignore=none", "HunyuanOCR-gptq-group_size=128-ignore=model.layers.0"):
        built.checkpoint(tmp_path / name, None, built.evaluation(built.some_pages(4)))
    one, two = sorted(str(path) for path in tmp_path.iterdir())
    file = tmp_path / "sweep.yaml"
    file.write_text(
        f"model: {demo}\ncalib: synthetic:2\neval: synthetic:2\noutput: {tmp_path / 'sweep'}\n"
        "runs: [{method: rtn, grid: {group_size: [32, 64]}}]\n"
    )
    return {"one": one, "two": two, "sweep": str(file)}


@pytest.mark.needs_methods
@pytest.mark.parametrize(
    ("command", "arguments"), [(name, each) for name, typed in TYPED.items() for each in typed], ids=str
)
def test_a_table_that_is_printed(
    command: str, arguments: tuple[str, ...], places: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = [command, *(each.format(**places) for each in arguments)]
    wide = CliRunner().invoke(main, typed)
    assert wide.exit_code == 0, wide.output
    # The one that imports the name from the other first: it would keep the patch.
    for module in ("compare", "common"):
        monkeypatch.setattr(f"hyocr_core.cli.{module}.stdout_width", lambda: WIDTH)
    narrow = CliRunner().invoke(main, typed)
    # Paths may be longer than a line, and free memory changes.
    paths = [word for word in wide.stdout.split() if len(word) > WIDTH - 20]
    broken = {word for word in words(narrow.stdout) - words(wide.stdout) if re.search(r"[^\d.]", word)}
    assert not {word for word in broken if not any(word in path for path in paths)}
    assert len(narrow.stdout.splitlines()) >= len(wide.stdout.splitlines())


@pytest.mark.parametrize("command", DRAWN)
def test_a_table_that_a_long_run_ends_with(command: str) -> None:
    for wide, narrow in zip(DRAWN[command](), DRAWN[command](), strict=True):
        lines = printed(narrow, WIDTH).splitlines()
        assert max(map(len, lines)) <= WIDTH
        assert words("\n".join(lines)) <= words(printed(wide, 1000))


def printed(table: Table, width: int) -> str:
    console = PlainConsole(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as capture:
        console.print(fitted(table, console, width))
    return capture.get()
