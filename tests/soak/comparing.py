"""Whether two runs left the same: every file but what tells the time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.soak.commands import WORK

_TIMED = re.compile(r"seconds|_per_second|phases|peak_rss_bytes|resumed_after_block")
_DIGEST = re.compile(r"pages-[0-9a-f]+")
"""A folder that is named for a record with seconds in it."""
_ANSWERS = "cache/hyocr/answers/"
"""Stay for later runs, which read a damaged one again; a run that needs none any more does not look at them."""
_PAGE = "report/index.html"
"""Shows seconds among its text; that it is there, and whole, has to do."""


def left_behind(folder: Path, straight: Path) -> dict[str, bytes]:
    """File below the work folder -> content that is to be equal, under the names of the undisturbed run."""
    work, found = folder / WORK, {}
    for path in sorted(path for path in work.rglob("*") if path.is_file()):
        name = str(path.relative_to(work))
        if name.startswith(_ANSWERS):
            continue
        found[_DIGEST.sub("pages", name)] = _comparable(path, name).replace(
            str(folder).encode(), str(straight).encode()
        )
    return found


def differences(before: dict[str, bytes], after: dict[str, bytes]) -> list[str]:
    """The files that are not the same, or are there once only."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _comparable(path: Path, name: str) -> bytes:
    content = path.read_bytes()
    if name.endswith(_PAGE):
        return content.strip()[-len(b"</html>") :]
    if path.suffix != ".json" or not ({"hyocr_report.json", "report"} & set(Path(name).parts)):
        return content
    return json.dumps(_untimed(json.loads(content))).replace(" --resume", "").encode()


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untimed(inner) for key, inner in value.items() if not _TIMED.search(key)}
    return [_untimed(inner) for inner in value] if isinstance(value, list) else value
