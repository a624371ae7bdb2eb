"""`python -m tests.soak --kills 60`: kill real runs at every kind of moment, and say what came of it."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from random import Random

from hyocr_core.testing.tiny import write_checkpoint
from tests.soak.scenarios import SCENARIOS
from tests.soak.soak import Counts, Soak


def main() -> int:
    """Spread the kills over all scenarios; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60, help="of all scenarios together, at least")
    parser.add_argument("--seed", type=int, default=0, help="of every choice but the speed of this machine")
    parser.add_argument("--every", action="store_true", help="kill at each operation on a file, once; takes an hour")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hyocr-soak-"))
    write_checkpoint(folder / "model")
    total = Counts()
    for number, name in enumerate(SCENARIOS):
        kills = (asked.kills + number) // len(SCENARIOS)
        soak = Soak(name, folder / "model", folder / f"scenario-{number}", Random(f"{asked.seed} {name}"))  # noqa: S311
        total += (counts := soak.run(max(kills, 1), operations=slice(None) if asked.every else None))
        print(f"{name}: {counts}", flush=True)
    print(f"all of {len(SCENARIOS)} commands, seed {asked.seed}: {total}")
    for line in total.differences:
        print(line, file=sys.stderr)
    if not total.differences:
        shutil.rmtree(folder)
    return 1 if total.differences else 0


if __name__ == "__main__":
    sys.exit(main())
