"""Run one command of hyocr and note what it took: `python gpu_job.py NOTE.json quant --method ...`.

The note has peak_gpu_bytes, what PyTorch reserved on the GPU at most, 0 without one, and peak_rss_bytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hyocr_core.cli.main import main
from hyocr_core.resources import peak_rss_bytes


def note() -> dict[str, int]:
    """What this process took, of the GPU too if it has used one."""
    torch = sys.modules.get("torch")
    used = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
    return {
        "peak_gpu_bytes": torch.cuda.max_memory_reserved() if torch is not None and used else 0,
        "peak_rss_bytes": peak_rss_bytes(),
    }


if __name__ == "__main__":
    path = Path(sys.argv.pop(1))
    try:
        main()
    finally:
        path.write_text(json.dumps(note()), encoding="utf-8")
