"""All checks of one checkpoint, in an order in which the first faults explain the later ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hyocr_core._version import __version__
from hyocr_core.checkpoint.quant_report import FILE_NAME, QuantReport, read_report
from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.checkpoint.resolve import resolve_model
from hyocr_core.errors import BadInputError, MethodError
from hyocr_core.formats import StoredFormats
from hyocr_core.formats.runtimes import Shapes
from hyocr_core.models.known_formats import known_runtimes
from hyocr_core.models.own_format import OwnFormat
from hyocr_core.models.passed_over import passed_over
from hyocr_core.progress import Progress, Silent
from hyocr_core.verification import against_original as compare
from hyocr_core.verification import against_report as record
from hyocr_core.verification import names, values
from hyocr_core.verification.basis import Basis
from hyocr_core.verification.beside_weights import check_processor, check_settings
from hyocr_core.verification.faults import Fault, Findings
from hyocr_core.verification.input_ranges import check_ranges
from hyocr_core.verification.original import Original
from hyocr_core.verification.subject import Subject
from hyocr_core.verification.trial_load import Runtime, read_page
from hyocr_core.verification.unfold import find_folds
from hyocr_core.verification.verdict import FaultRecord, LayerMatch, LoadRecord, RuntimeRecord, VerifyResult


def verify(
    folder: Path,
    *,
    original: str | None = None,
    revision: str | None = None,
    load: Runtime | None = None,
    python: Path | None = None,
    progress: Progress | None = None,
) -> VerifyResult:
    """Check a quantized checkpoint.

    original: folder or hub name of the full-precision checkpoint it was made from, and its revision on the hub. load: a
    runtime to read with; python: the interpreter that has vLLM.
    Raises CheckpointError for a folder that is no quantized checkpoint, or one of a kind that hyocr does not know;
    BadInputError for a revision without an original.
    """
    if revision is not None and original is None:
        raise BadInputError(f"a revision ({revision}) needs an original on the hub to choose it of")
    progress = progress or Silent()
    subject = Subject(folder)
    source = None if original is None else Original(CheckpointReader(resolve_model(original, revision).folder))
    found = Findings(list(_check_names(subject)))
    report, vouched = _check_record(subject, found)
    found.notes += passed_over(subject.model)
    if subject.own is not None:
        found.notes.append(subject.own.note)
    found.faults += _check_values(subject, progress, vouched=vouched or source is not None)
    found.faults += _check_beside(subject)
    matches = [] if source is None else _compare(subject, source, report, found, progress)
    shapes = {linear.name: linear.shape for linear in subject.quantized.values()}
    known = known_runtimes(subject.config, shapes)
    if all(runtime.loads == "no" for runtime in known):
        found.faults.append(
            Fault("config.json", f"no runtime loads such a checkpoint; {known[0].name}: {known[0].why}")
        )
    loaded = None if load is None else _load(subject, load, python, shapes)
    if loaded is not None:
        found.faults += _load_faults(loaded, folder)
    return VerifyResult(
        hyocr=__version__,
        folder=str(folder),
        quant_method=subject.quant_method,
        quantized=len(subject.quantized),
        plain=len(subject.linears) - len(subject.quantized),
        faults=tuple(FaultRecord(place=fault.place, problem=fault.problem) for fault in found.faults),
        notes=tuple(found.notes),
        runtimes=tuple(RuntimeRecord(name=runtime.name, loads=runtime.loads, why=runtime.why) for runtime in known),
        layers=tuple(LayerMatch(name=m.name, shape=m.shape, sqnr_db=m.decibels, least_db=m.least) for m in matches),
        load=loaded,
    )


def _load(subject: Subject, runtime: Runtime, python: Path | None, shapes: Shapes) -> LoadRecord:
    if isinstance(subject.stored, OwnFormat):
        why = f"no runtime is known to have the format of {subject.stored.method.entry}"
        return LoadRecord(runtime=runtime, outcome="cannot be tried here", detail=why, page="", text="")
    return read_page(subject.reader.folder, runtime, subject.stored, shapes, python)


def _load_faults(loaded: LoadRecord, folder: Path) -> Iterator[Fault]:
    if loaded.outcome == "failed":
        yield Fault(folder.name, loaded.detail)
    if loaded.together is not None and loaded.together.changed:
        yield Fault(loaded.together.versions, loaded.together.finding)


def _check_names(subject: Subject) -> Iterator[Fault]:
    for check in (names.check_known, names.check_carried, names.check_linears):
        yield from check(subject)
    if subject.own is None:
        for check in (names.check_ignored, names.check_targets, names.check_fused, names.check_cache):
            yield from check(subject)


def _check_values(subject: Subject, progress: Progress, *, vouched: bool) -> Iterator[Fault]:
    progress.start("check tensors", len(subject.others) + len(subject.linears))
    yield from values.check_plain(subject, progress)
    yield from values.check_tied(subject)
    yield from values.check_packed(subject, progress, vouched=vouched)
    if subject.own is None:
        yield from values.check_shared_scales(subject)


def _check_beside(subject: Subject) -> Iterator[Fault]:
    """What the formats find in the files that they write for runtimes that read no safetensors."""
    formats = subject.stored.formats if isinstance(subject.stored, StoredFormats) else ()
    for written in {type(each): each for each in formats}.values():
        yield from (Fault(name, problem) for name, problem in written.beside(subject.reader.folder))


def _check_record(subject: Subject, found: Findings) -> tuple[QuantReport | None, bool]:
    """Return the report of a checkpoint by hyocr, and whether its files are those that it was written for."""
    if not (subject.reader.folder / FILE_NAME).is_file():
        found.notes.append(f"there is no {FILE_NAME}: another tool wrote this, so there is no record to compare with")
        return None, False
    try:
        report = read_report(subject.reader.folder)
    except BadInputError as error:
        found.faults.append(Fault(FILE_NAME, str(error)))
        return None, False
    changed = list(record.check_files(subject, report))
    found.faults += [*changed, *record.check_layers(subject, report)]
    if not record.covers_all(report):
        found.notes.append(f"{FILE_NAME} is of an older hyocr, and has digests of the weights alone")
    try:
        found.faults += record.check_config(subject, report)
    except MethodError as error:
        found.notes.append(f"config.json was not compared with what {report.title} writes: {error}")
    return report, not changed


def _compare(
    subject: Subject, original: Original, report: QuantReport | None, found: Findings, progress: Progress
) -> list[compare.Match]:
    """Hold everything against the original; return how near each layer is."""
    basis = Basis(report)
    progress.start("compare", len(subject.others) + len(subject.linears))
    differing, rescaled = compare.check_carried(subject, original, report, basis.replaced, progress)
    folds = find_folds(subject, original, basis, rescaled)
    distant, matches = compare.check_weights(subject, original, folds, basis, progress)
    changed = () if report is None else report.config_changes
    found.faults += [*differing, *distant, *check_settings(subject, original.reader, changed)]
    check_processor(subject, original.reader, found)
    if basis.replaced:
        found.notes += _left_out(subject, basis)
    else:
        check_ranges(subject, original.reader.folder, folds, found)
    return matches


def _left_out(subject: Subject, basis: Basis) -> Iterator[str]:
    quantized = {f"{linear.name}.weight" for linear in subject.quantized.values()}
    yield from basis.notes(len(basis.replaced - quantized), len(basis.replaced & quantized))
    if any("input_scale" in linear.packed for linear in subject.quantized.values()):
        yield "static scales of inputs were not compared: the method changed what layers are given"
