"""Config groups of several methods become one config, or are refused."""

from __future__ import annotations

from typing import Any

import pytest

from hyocr_core.contract.types import QuantizedNames
from hyocr_core.errors import ConfigError
from hyocr_core.formats import CompressedFp8Format, Format, GptqFormat, PackQuantizedFormat
from hyocr_core.formats.merged import Written, merged_config

FOUR, FP8 = PackQuantizedFormat(4, 128, sym=True), CompressedFp8Format("channel", "dynamic")


def written(who: str, stored: Format, *names: str, **more: Any) -> Written:
    return Written(who, stored.quantization_config(QuantizedNames(names, ("others",))) | more, names)


def test_groups_name_their_linears_and_their_formats() -> None:
    config = merged_config([written("a", FOUR, "x", "y"), written("b", FP8, "z")], ["lm_head"])
    assert config["format"] == "mixed-precision"
    assert config["ignore"] == ["lm_head"]
    groups = [(group["targets"], group["format"]) for group in config["config_groups"].values()]
    assert groups == [(["x", "y"], "pack-quantized"), (["z"], "float-quantized")]


def test_what_says_the_same_is_one_group() -> None:
    config = merged_config([written("a", FOUR, "x"), written("b", FOUR, "y")], [])
    assert config["format"] == "pack-quantized"
    assert [group["targets"] for group in config["config_groups"].values()] == [["x", "y"]]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            written("b", GptqFormat(4, 128, sym=True), "y"),
            "b writes gptq, which has no room for layers of other",
        ),
        (
            written("b", FP8, "y", kv_cache_scheme={"num_bits": 4}),
            "b: kv_cache_scheme of config.json is for all",
        ),
    ],
)
def test_what_cannot_share_is_refused(other: Written, said: str) -> None:
    cached = CompressedFp8Format("channel", "dynamic", kv_cache=True)
    with pytest.raises(ConfigError, match=said):
        merged_config([written("a", cached, "x"), other], [])
