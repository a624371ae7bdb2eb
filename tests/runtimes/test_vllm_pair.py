"""Which versions may read pages at once."""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement

from hyocr_core.runtimes.vllm_pair import INSTALL, VllmPair


@pytest.mark.parametrize(
    ("vllm", "transformers", "sound"),
    [
        ("0.33.0", "5.20.1", True),
        ("0.32.0", "5.20.2", True),
        ("0.32.0+cpu", "5.24.0", True),
        ("0.33.0", "5.20.0", False),
        ("0.32.0", "5.19.0", False),
        ("0.29.0", "5.16.1", False),
        ("0.28.1", "5.16.1", True),
        ("0.28.0", None, True),
        ("0.33.0", None, False),
        ("0.33.0", "5.21.0.dev0", True),
        ("nightly", "5.24.0", False),
    ],
)
def test_pairs(vllm: str, transformers: str | None, sound: bool) -> None:
    pair = VllmPair(vllm=vllm, transformers=transformers)
    assert pair.sound == sound
    assert (INSTALL in pair.remedy) == (not sound)
    assert pair.model_copy(update={"plugin": True}).sound
    assert "--max-num-seqs 1" in pair.remedy


def test_the_plugin_splits_pages_unless_it_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    packages = {"transformers": "5.19.0", "hyocr-vllm": "0.1.0"}
    assert VllmPair.among("0.32.0", packages).sound
    monkeypatch.setenv("HYOCR_VLLM_FORWARD", "transformers")
    assert not VllmPair.among("0.32.0", packages).sound


def test_what_is_to_be_installed_is_sound() -> None:
    wanted = Requirement(INSTALL.split("'")[1])
    assert VllmPair(vllm="0.33.0", transformers="5.20.1").sound
    for version in ("5.20.1", "5.20.2"):
        assert wanted.specifier.contains(version)
        assert VllmPair(vllm="0.33.0", transformers=version).sound
    for version in ("5.19.0", "5.20.0", "5.21.0"):  # vLLM 0.33 allows nothing from 5.21 on
        assert not wanted.specifier.contains(version)
