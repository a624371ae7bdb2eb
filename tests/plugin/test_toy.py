"""The toy method as pip installs it: it passes its own tests, the conformance kit, and its package holds its types."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TOY = Path(__file__).parents[1] / "distributions" / "toy"


def test_the_installed_distribution_passes_its_own_tests(tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = ["-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps", "--no-index"]
    command = [sys.executable, *pip, "--no-build-isolation", "--target", str(site), str(TOY)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    assert {path.name for path in site.iterdir()} == {"hyocr_plugin_toy", "hyocr_plugin_toy-1.2.3.dist-info"}
    assert (site / "hyocr_plugin_toy" / "py.typed").is_file()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(TOY), str(TOY / "tests")],
        env=os.environ | {"PYTHONPATH": str(site)},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    # Only the two that have nothing to check: it does not calibrate, and no checkpoint that reads is given.
    assert "14 passed, 2 skipped" in done.stdout
