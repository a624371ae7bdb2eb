"""The metric and the backend of docs/metrics.md, and others, as distributions of their own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.conftest import REPO

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

PAGE = (REPO / "docs" / "metrics.md").read_text(encoding="utf-8")
EXAMPLES = {
    f"{found[1]}": found[0]
    for found in re.findall(r'^```python\n("""my_package/(\w+)\.py""".*?)^```', PAGE, re.MULTILINE | re.DOTALL)
}
"""What the page tells to put into a module, by the module's name."""

METRIC = """
from hyocr_core import Metric

class Toy(Metric):
    api_version = 1
    title = "toy"

    def page(self, text, reference):
        return {}
"""

BACKEND = """
from hyocr_core import Backend, PageAnswer

class Toy(Backend):
    api_version = 1

    def read(self, pages, say):
        for page in pages:
            {}
"""


def install(plugins: PluginFolder, group: str, name: str, source: str, cls: str = "Toy", of: str = "toys") -> None:
    """Install a class as the entry point NAME of the distribution `hyocr-OF 0.0.1`."""
    module = f"hostile_{of}_{name}".replace("-", "_")
    (plugins.folder / f"{module}.py").write_text(source, encoding="utf-8")
    plugins.metadata(f"hyocr-{of}", "0.0.1", {name: f"{module}:{cls}"}, "a toy", group=f"hyocr.{group}")


def install_metric(plugins: PluginFolder, value: str, name: str = "toy", of: str = "toys") -> None:
    """Install a metric that returns `value`, an expression in text and reference, for every page."""
    install(plugins, "metrics", name, METRIC.format(value), of=of)


def install_words_found(plugins: PluginFolder) -> None:
    """Install the metric of the page."""
    install(plugins, "metrics", "words-found", EXAMPLES["words_found"], "WordsFound")
