"""`python -m tests.fuzz --minutes 60`: break what commands read, in every way, and say what came of it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.fuzz.campaign import Campaign
from tests.fuzz.served import Served
from tests.fuzz.targets import TARGETS
from tests.fuzz.world import build


def main() -> int:
    """Give each target a share of the time; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="targets whose name holds this")
    asked = parser.parse_args()
    chosen = {name: target for name, target in TARGETS.items() if asked.only in name}
    with tempfile.TemporaryDirectory(prefix="hyocr-world-") as folder, Served() as server:
        world = build(Path(folder) / "world")
        campaign = Campaign(world, server, asked.seed)
        for name, target in chosen.items():
            print(f"{name}: {campaign.run(name, target, 60 * asked.minutes / len(chosen))}", flush=True)
    print(f"all of {len(chosen)} targets, seed {asked.seed}: {campaign.total}")
    for place in campaign.faults:
        print(place, file=sys.stderr)
    return 1 if campaign.faults else 0


if __name__ == "__main__":
    sys.exit(main())
