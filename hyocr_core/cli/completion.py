"""What a shell offers behind Tab where click alone knows no better: methods and their options, tasks, plugins, pages.

Nothing here may fail, or print: a shell would show it in the middle of the line that is typed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

from hyocr_core.errors import HyocrError

if TYPE_CHECKING:
    import click


def methods(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The installed methods, each with what it does."""
    from hyocr_core.plugin.registry import installed_methods

    return _beginning(begun, ((each.name, each.summary) for each in installed_methods()))


def method_options(context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """`KEY=` of the method that the line names."""
    from hyocr_core.plugin.registry import load_method

    try:
        fields = load_method(context.params.get("method") or "").spec.config_class.model_fields
    except HyocrError:
        return []
    return _beginning(begun, ((f"{key}=", field.description) for key, field in fields.items()))


def tasks(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The official tasks, and with a colon their languages."""
    from hyocr_core.pages.prompts import TASKS

    name, colon, _ = begun.partition(":")
    offered = [f"{name}:{language}" for language in TASKS.get(name, ())] if colon else list(TASKS)
    return _beginning(begun, ((each, None) for each in offered))


def paths(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Files and folders: what is there for an option that takes names of other kinds too."""
    return [CompletionItem(begun, type="file")]


def metrics(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The installed metrics."""
    from hyocr_core.plugin.metrics import installed_metrics

    return _beginning(begun, ((each.name, each.summary) for each in installed_metrics()))


def observers(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The installed observers."""
    from hyocr_core.plugin.observers import installed_observers

    return _beginning(begun, ((each.name, each.summary) for each in installed_observers()))


def _beginning(begun: str, offered: Iterable[tuple[str, str | None]]) -> list[CompletionItem]:
    return [CompletionItem(value, help=said) for value, said in offered if value.startswith(begun)]
