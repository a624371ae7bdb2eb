"""Fills the parts of the documentation that come from the code and from measurements; mkdocs calls it as a hook.

A page names such a part by a comment on a line of its own, `<!-- generated: NAME -->`.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from hyocr_core import errors
from hyocr_core.cli.eval import eval_command
from hyocr_core.cli.main import main
from hyocr_core.cli.methods import schema_rows
from hyocr_core.cli.quant import quant
from hyocr_core.pages.prompts import TASKS
from hyocr_core.plugin.registry import installed_methods, load_method
from hyocr_core.run.sweep import SweepConfig, SweepEntry
from hyocr_core.settings.eval_config import EvalConfig
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.settings.shared import bound_meanings

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from pydantic import BaseModel

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
MARK = re.compile(r"(?m)^<!-- generated: (\w+) -->$")
LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//[^"'\s>]+|"""
    r"""<link\b[^>]*\brel=["']?(?:stylesheet|preload|preconnect)[^>]*href=["']?(?:https?:)?//[^"'\s>]+"""
)
OF_THE_REPOSITORY = ("awq", "fp8", "gguf", "gptq", "rtn")
TOOLS = {"llmcompressor": "llm-compressor", "gptqmodel": "GPTQModel"}


def fill(markdown: str) -> str:
    """Replace each mark by the part that it names; KeyError for one that does not exist."""
    return MARK.sub(lambda match: PARTS[match[1]](), markdown)


def run_keys() -> str:
    """The keys of a run file, with the flag that sets the same."""
    return _with_flags(RunConfig, quant, {"options": "-o KEY=VALUE"})


def eval_keys() -> str:
    """The keys of an evaluation, with the option that sets the same."""
    return _with_flags(EvalConfig, eval_command, {"model": "MODEL"})


def _with_flags(config: type[BaseModel], command: click.Command, others: dict[str | None, str]) -> str:
    flags = {parameter.name: parameter.opts[0] for parameter in command.params} | others
    rows = [(key, flags.get(key, ""), *rest) for key, *rest in _options(config)]
    return _table(("key", "flag", "type", "default", "meaning"), [_code(row, 4) for row in rows])


def gate_bounds() -> str:
    """What a gate can ask."""
    rows = [(f"`{name}`", meaning) for name, meaning in bound_meanings("hyocr-core")]
    return _table(("bound", "meaning"), rows)


def tasks() -> str:
    """What a page can be asked, in both languages."""
    rows = [(f"`{name}`", wording["zh"], wording.get("en", "")) for name, wording in TASKS.items()]
    return _table(("task", "Chinese", "English"), rows)


def sweep_keys() -> str:
    """The keys of a sweep, and of each entry of its list."""
    titles = ("key", "type", "default", "meaning")
    return "\n\n".join(
        f"{intro}\n\n{_table(titles, [_code(row, 3) for row in _options(model)])}"
        for intro, model in (("The file:", SweepConfig), ("Each entry of `runs`:", SweepEntry))
    )


def method_options() -> str:
    """A section for each method of this repository."""
    return "\n\n".join(_method_sections())


def measured_methods() -> str:
    """What every method costs in size and quality on the demo checkpoint."""
    methods = benchmark("methods")
    rows = json.loads((BENCHMARKS / "results/methods.json").read_text(encoding="utf-8"))
    table: str = methods.table([methods.Row(**row) for row in rows])
    return table


def measured_quality() -> str:
    """How near the defaults of every method and of other tools come on every trained reader."""
    rows = json.loads((BENCHMARKS / "results/quality.json").read_text(encoding="utf-8"))["measured"]
    of: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        where = row["conditions"]
        of.setdefault(where["candidate"], {}).setdefault(where["reader"], []).append(1e4 * row["kl"])
    readers = list(dict.fromkeys(row["conditions"]["reader"] for row in rows))
    shown = [name for name in of if name in OF_THE_REPOSITORY or name.split()[0] in TOOLS]
    shown.sort(key=lambda name: fmean(of[name][readers[0]]))
    return _table(
        ("", *readers), [(_candidate(name), *(_spread(of[name][each]) for each in readers)) for name in shown]
    )


def _candidate(name: str) -> str:
    tool, _, setting = name.partition(" ")
    return f"{TOOLS[tool]}, `{setting}`" if setting else f"**hyocr, `{name}`**"


def _spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.1f} ± {stdev(values):.1f}"


def measured_jobs() -> str:
    """What a job costs in time and memory on the published shape."""
    jobs = json.loads((BENCHMARKS / "results/quantize.json").read_text(encoding="utf-8"))
    rows = []
    for method, job in sorted(jobs.items(), key=lambda item: float(item[1]["job_seconds"])):
        seconds, memory = f"{job['job_seconds']:.0f} s", f"{job['peak_rss_gb']:.2f} GB"
        rows.append((f"`{method}`", str(job["pages"]), seconds, f"{job['ratio']:.2f}", memory))
    titles = ("method", "pages", "whole job", "job over calibration forward alone", "peak memory")
    return _table(titles, rows)


def error_classes() -> str:
    """Every error class, its exit code and what it says."""
    rows = [(f"`{name}`", str(cls.exit_code), inspect.getdoc(cls) or "") for name, cls in error_types().items()]
    return _table(("error", "exit code", "meaning"), rows)


def error_types() -> dict[str, type[errors.HyocrError]]:
    """Every class of error that the user may see, by name."""
    classes = (value for value in vars(errors).values() if inspect.isclass(value))
    return {cls.__name__: cls for cls in classes if issubclass(cls, errors.HyocrError)}


def commands() -> str:
    """Every command with its usage, help and options."""
    return "\n\n".join(_command_sections(click.Context(main, info_name="hyocr", **main.context_settings)))


def visible_commands(context: click.Context) -> Iterator[click.Context]:
    """A command and those below it, in the order of `--help`, each as a context."""
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            below = context.command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from visible_commands(click.Context(below, parent=context, info_name=name))


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "error_classes": error_classes,
    "eval_keys": eval_keys,
    "gate_bounds": gate_bounds,
    "measured_jobs": measured_jobs,
    "measured_methods": measured_methods,
    "measured_quality": measured_quality,
    "method_options": method_options,
    "run_keys": run_keys,
    "sweep_keys": sweep_keys,
    "tasks": tasks,
}


def benchmark(name: str) -> ModuleType:
    """Import one of the scripts in benchmarks/, which are no package."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"no benchmark {name}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up the types of their fields
    spec.loader.exec_module(module)
    return module


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with the text of every page."""
    return fill(markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Called by mkdocs at the end: no page may load anything from the network."""
    for page in sorted(Path(config.site_dir).rglob("*.html")):
        if match := LOADED.search(page.read_text(encoding="utf-8")):
            raise SystemExit(f"{page}: loads from the network: {match[0]}")


def _command_sections(root: click.Context) -> Iterator[str]:
    for context in visible_commands(root):
        command = context.command
        records = [option.get_help_record(context) for option in command.get_params(context)]
        rows = [(f"`{names}`", _plain(meaning)) for names, meaning in filter(None, records)]
        usage = f"```text\n{' '.join([context.command_path, *command.collect_usage_pieces(context)])}\n```"
        paragraphs = [_paragraph(text) for text in inspect.cleandoc(command.help or "").split("\n\n")]
        epilog = [_plain(command.epilog)] if command.epilog else []
        options = _table(("option", "meaning"), rows)
        yield "\n\n".join([f"## {context.command_path}", usage, *paragraphs, options, *epilog])


def _paragraph(text: str) -> str:
    # What click must not wrap are examples.
    return f"```text\n{text.removeprefix(chr(8)).strip()}\n```" if text.startswith("\b") else _plain(text)


def _plain(text: str) -> str:
    """Keep Markdown from reading brackets and stars outside of `code` as its own."""
    parts = text.split("`")
    return "`".join(
        re.sub(r"([\[\]<*_])", r"\\\1", part) if place % 2 == 0 else part for place, part in enumerate(parts)
    )


def _method_sections() -> Iterator[str]:
    for entry in installed_methods():
        if entry.name in OF_THE_REPOSITORY:
            spec = load_method(entry.selector).spec
            rows = [_code(row, 3) for row in _options(spec.config_class)]
            table = _table(("key", "type", "default", "meaning"), rows)
            yield f"### {entry.name}\n\n{spec.summary}. `pip install {entry.distribution}`\n\n{table}"


def _options(config: type[BaseModel]) -> list[tuple[str, ...]]:
    schema = config.model_json_schema()
    return [(key, kind.replace(" | ", " or "), *rest) for key, kind, *rest in schema_rows(schema, schema)]


def _code(row: tuple[str, ...], count: int) -> tuple[str, ...]:
    """Set all but the last cells in code."""
    return tuple(f"`{cell}`" if cell and index < count else cell for index, cell in enumerate(row))


def _table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [titles, ("---",) * len(titles), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
