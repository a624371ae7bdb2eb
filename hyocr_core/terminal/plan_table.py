"""What `hyocr quant --dry-run` prints."""

from __future__ import annotations

from rich.table import Table

from hyocr_core.evaluation.scores.numbers import duration, size, times
from hyocr_core.run.dry_run import CalibrationPlan, DryRun, PartSize

_UNKNOWN = "unknown"
_ANSWERS = {"data": "", "generate": " and the answers that the model writes", "none": " without answers"}


def heading(plan: DryRun) -> str:
    """Which method makes what of which checkpoint."""
    format_ = f", format {plan.options['format']}" if plan.options["format"] else ""
    return f"{plan.method} ({plan.provided_by}){format_}: {plan.model} -> {plan.output}"


def linears_table(plan: DryRun) -> Table:
    """One row for each kind of linear and what becomes of it."""
    table = _table("linears", "count")
    table.add_column("becomes")
    for row in plan.linears:
        becomes = row.stored or f"left as is: {row.left}"
        table.add_row(row.part, str(row.count), becomes, style=None if row.stored else "dim")
    return table


def sizes_table(plan: DryRun) -> Table:
    """Megabytes of each part before and after, and all of them."""
    table = _table("part", "before", "after", "smaller")
    for row in (*plan.sizes, total_size(plan)):
        ratio = times(row.before / row.after) if row.after else _UNKNOWN
        after = _UNKNOWN if row.after is None else size(row.after)
        table.add_row(row.part, size(row.before), after, ratio if row.before else "")
    return table


def resources_table(plan: DryRun) -> Table:
    """What the run takes, and what there is."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column()
    resources = plan.resources
    if plan.calibration is not None:
        used = plan.calibration
        samples = f"{used.samples} samples of {used.source}, {used.tokens} tokens{_ANSWERS[used.answers]}"
        table.add_row("calibration", samples)
        if used.max_pixels is not None:
            table.add_row("  scaled to", f"{used.max_pixels:,} pixels at most{_without_limit(used)}")
    for name, reason in plan.calibration.failures.items() if plan.calibration else ():
        table.add_row("  left out", f"{name}: {reason}")
    if plan.evaluation is not None:
        read = plan.evaluation
        gate = "no gate" if read.gate is None else ", ".join(f"{key}={bound:g}" for key, bound in read.gate.items())
        table.add_row("evaluation", f"{read.pages} pages of {read.source}; {gate}")
    memory = "not estimated on a GPU" if resources.memory is None else f"about {size(resources.memory)}"
    table.add_row("memory", f"{memory}; {size(resources.memory_free)} are free")
    table.add_row("disk", f"at most {size(resources.disk)}; {size(resources.disk_free)} are free")
    more = "" if plan.evaluation is None else ", and the evaluation"
    table.add_row("time", f"{duration(*plan.time.seconds)} ({plan.time.how}){more}")
    for runtime in plan.runtimes:
        table.add_row(runtime.name, f"{runtime.loads}: {runtime.why}" if runtime.why else runtime.loads)
    return table


def _without_limit(used: CalibrationPlan) -> str:
    """What max_pixels saves."""
    free = used.without_limit
    if free is None:
        return ""
    memory = "" if free.memory is None else f", memory about {size(free.memory)}"
    return f"; without: {free.tokens} tokens{memory}, time of the forward passes {times(free.work)}"


def plan_tables(plan: DryRun) -> tuple[Table, ...]:
    """All tables, in the order in which they are read."""
    return linears_table(plan), sizes_table(plan), resources_table(plan)


def total_size(plan: DryRun) -> PartSize:
    """All parts together."""
    after = [row.after for row in plan.sizes]
    known = [size for size in after if size is not None]
    return PartSize(
        part="all", before=sum(row.before for row in plan.sizes), after=sum(known) if len(known) == len(after) else None
    )


def _table(first: str, *numbers: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for title in numbers:
        table.add_column(title, justify="right", no_wrap=True)
    return table
