"""Whether a checkpoint was calibrated on pages that it is evaluated on, which makes it look better than it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hyocr_core.checkpoint.quant_report import read_report
from hyocr_core.errors import CheckpointError, ConfigError
from hyocr_core.pages.duplicates import shared_pages


def seen_warning(folder: Path, image_digests: Sequence[str]) -> str | None:
    """One line that says how many of the pages (`Sample.image_digest`) the checkpoint's calibration has seen.

    None if it has seen none, or if the checkpoint has no readable report that records its pages.
    """
    try:
        calibration = read_report(folder).calibration
    except (CheckpointError, ConfigError):
        # Whoever needs the report complains about it; a checkpoint of another tool has none.
        return None
    seen = shared_pages(calibration.page_sha256, image_digests) if calibration else []
    if not seen:
        return None
    return f"warning: calibration saw {len(seen)} of these {len(image_digests)} pages; held-out pages would say more"
