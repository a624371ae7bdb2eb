"""Run the observers that the user named beside the hooks: they see copies, and one that fails is switched off."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch

from hyocr_core.checkpoint.quant_report import ObserverRecord
from hyocr_core.contract.observer import Observer, ObserverConfig
from hyocr_core.contract.types import HookCall
from hyocr_core.errors import ObserverError, one_line
from hyocr_core.plugin.observers import LoadedObserver, ObserverEntry, load_observer

ALIVE = ("block", "batches", "model")
"""Arguments that an observer could reach into the run by; what it may know of them is in the result."""


@dataclass(frozen=True)
class Chosen:
    """An observer that the user named, with the options given."""

    plugin: LoadedObserver
    config: ObserverConfig


@dataclass
class _Running:
    entry: ObserverEntry
    observer: Observer
    calls: int = 0
    failed: str | None = None


def choose_observers(observers: Mapping[str, Mapping[str, Any]]) -> tuple[Chosen, ...]:
    """Load each named observer and validate its options; raises ObserverError or ConfigError. Starts none."""
    loaded = {selector: load_observer(selector) for selector in observers}
    return tuple(Chosen(plugin, plugin.config(observers[selector])) for selector, plugin in loaded.items())


class Watch:
    """The observers of one run. say: takes a line that the user should read."""

    def __init__(self, chosen: Sequence[Chosen], say: Callable[[str], None]) -> None:
        self._say = say
        self._running: list[_Running] = []
        for one in chosen:
            self._running.append(_Running(one.plugin.entry, self._start(one)))

    def __call__(self, call: HookCall) -> None:
        """Tell every observer that wants to see this hook, each with copies of its own."""
        for running in self._running:
            if running.failed is None and call.hook in running.observer.hooks:
                running.calls += 1
                with self._switching_off(running, call.hook, call.layer):
                    running.observer.called(_copied_call(call))

    def close(self) -> tuple[ObserverRecord, ...]:
        """Close every observer once, also one that failed; return what the report says of them."""
        for running in self._running:
            with self._switching_off(running, "close"):
                running.observer.close()
        closed, self._running = self._running, []
        return tuple(
            ObserverRecord(
                name=running.entry.name,
                distribution=running.entry.distribution,
                version=running.entry.version,
                calls=running.calls,
                failed=running.failed,
            )
            for running in closed
        )

    def _start(self, chosen: Chosen) -> Observer:
        try:
            with _apart():
                return chosen.plugin.cls(chosen.config)
        except (Exception, SystemExit) as error:
            self.close()
            raise ObserverError(f"{chosen.plugin.entry}: cannot start: {one_line(error, named=True)}") from error

    @contextmanager
    def _switching_off(self, running: _Running, hook: str, layer: str = "") -> Iterator[None]:
        """Let no error of an observer reach the run: it is said, and the observer is not called again."""
        try:
            with _apart():
                yield
        except (Exception, SystemExit) as error:
            if running.failed is not None:
                return
            # The report is published, and the message may hold a path of this machine: only the class goes there.
            running.failed = f"{hook}{layer and f', {layer}'}: {type(error).__name__}"
            where, why = running.entry.at(hook, layer), one_line(error, named=True)
            self._say(f"{where}: {why}; it is switched off, the run goes on without it")


@contextmanager
def watching(chosen: Sequence[Chosen], say: Callable[[str], None]) -> Iterator[Watch]:
    """Start observers and close them however the body ends; raises ObserverError for one that cannot start."""
    watch = Watch(chosen, say)
    try:
        yield watch
    finally:
        watch.close()


@contextmanager
def _apart() -> Iterator[None]:
    """Keep what an observer prints off stdout, and undo what it may change of torch that a result depends on."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    started: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = [torch.cuda.current_device()] if started else []
    try:
        with torch.random.fork_rng(devices), torch.no_grad(), redirect_stdout(sys.stderr):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def _copied_call(call: HookCall) -> HookCall:
    """The call with copies of all tensors; those that were one object still are."""
    known: dict[int, torch.Tensor] = {}
    arguments = {name: _copied(value, known) for name, value in call.arguments.items() if name not in ALIVE}
    return replace(call, arguments=arguments, result=_copied(call.result, known))


def _copied(value: Any, known: dict[int, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        if id(value) not in known:
            known[id(value)] = value.detach().clone()
        return known[id(value)]
    if isinstance(value, Mapping):
        return {key: _copied(item, known) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item, known) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _copied(getattr(value, field.name), known) for field in fields(value)})
    return value
