"""Files in the reference toolkit's schema become the run that their author meant."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from hyocr_core.errors import ConfigError
from hyocr_core.plugin.registry import load_method
from hyocr_core.settings.angelslim import ReferenceFile
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.settings.run_file import Merged, merge_run_config

pytestmark = pytest.mark.needs_methods

SHIPPED = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
REFERENCE = [path for path in SHIPPED if path.name.startswith("hunyuan_ocr_")]

Edits = dict[str, Any]


def read(
    tmp_path: Path, edits: Edits, *, flags: dict[str, Any] | None = None, overrides: list[str] | None = None
) -> Merged:
    """Merge a file of the reference's after edits by dotted key; None deletes one."""
    data: dict[str, Any] = {
        "global": {"save_path": "./output"},
        "model": {"name": "HunyuanVL", "model_path": "m"},
        "compression": {
            "name": "PTQ",
            "quantization": {
                "name": "int4_gptq",
                "bits": 4,
                "quant_method": {"weight": "per-group", "group_size": 128},
            },
        },
        "dataset": {"name": "MultiModalDataset", "data_path": "pages"},
    }
    for key, value in edits.items():
        *parents, last = key.split(".")
        target = data
        for parent in parents:
            target = target.setdefault(parent, {})
        target[last] = deepcopy(value)
        if value is None:
            del target[last]
    file = tmp_path / "reference.yaml"
    with file.open("w") as stream:
        YAML(typ="safe").dump(data, stream)
    return merge_run_config(file, flags or {}, overrides or [])


def problem(tmp_path: Path, edits: Edits, **more: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, edits, **more)
    message = str(caught.value)
    assert "\n" not in message
    prefix = f"run configuration ({tmp_path / 'reference.yaml'}): "
    assert message.startswith(prefix)
    return message.removeprefix(prefix)


Q = "compression.quantization"
FP8 = {
    f"{Q}.name": "fp8_static",
    f"{Q}.bits": 8,
    f"{Q}.quant_method": {"weight": "per-tensor", "activation": "per-tensor"},
}
AWQ = {f"{Q}.name": "int4_awq"}


def test_there_is_a_file_in_either_schema_for_each_method() -> None:
    assert len(REFERENCE) == 3
    assert {path.parent.name for path in SHIPPED if path not in REFERENCE} == {path.parent.name for path in REFERENCE}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_shipped_file_is_a_run_whose_options_its_method_takes(path: Path) -> None:
    run, notes = merge_run_config(path, {}, [])
    assert run.model == "tencent/HunyuanOCR"
    config = load_method(run.method or "").config(run.options)
    assert config.ignore == ("lm_head",)
    assert not config.quant_vit
    assert bool(notes) == (path in REFERENCE)


@pytest.mark.parametrize("path", REFERENCE, ids=lambda path: path.stem)
def test_both_shipped_schemas_say_the_same(path: Path) -> None:
    theirs = merge_run_config(path, {}, []).run
    ours = merge_run_config(path.with_name("native.yaml"), {}, []).run
    assert theirs.method == ours.method
    method = load_method(ours.method or "")
    same = method.config(theirs.options).model_dump(exclude={"format", "mse_range"})
    assert same == method.config(ours.options).model_dump(exclude={"format", "mse_range"})


def test_a_file_sets_every_key_of_the_run(tmp_path: Path) -> None:
    edits = {"dataset.num_samples": 7, f"{Q}.ignore_layers": ["lm_head"], f"{Q}.quant_vit": True}
    assert read(tmp_path, edits) == Merged(
        RunConfig(
            model="m",
            output=Path("output/reference"),
            method="gptq",
            calib="pages",
            num_samples=7,
            options={"bits": 4, "group_size": 128, "ignore": ["lm_head"], "quant_vit": True},
        ),
        (),
    )


@pytest.mark.parametrize(
    ("edits", "method", "expected"),
    [
        ({}, "gptq", {"bits": 4, "group_size": 128}),
        ({f"{Q}.bits": 8, f"{Q}.quant_method.group_size": 64}, "gptq", {"bits": 8, "group_size": 64}),
        ({f"{Q}.bits": None}, "gptq", {"bits": 4, "group_size": 128}),
        ({f"{Q}.quant_method.group_size": -1}, "gptq", {"bits": 4, "group_size": 128}),
        ({f"{Q}.quant_method": None}, "gptq", {"bits": 4, "group_size": 128}),
        ({f"{Q}.save_name": "compressed-tensors"}, "gptq", {"format": "compressed-tensors"}),
        ({f"{Q}.quant_method.zero_point": False}, "gptq", {"sym": True}),
        ({f"{Q}.quant_method.zero_point": True}, "gptq", {"sym": False, "format": "compressed-tensors"}),
        ({f"{Q}.quant_method.mse_range": False}, "gptq", {"mse": False}),
        (AWQ, "awq", {"bits": 4, "group_size": 128}),
        ({**AWQ, f"{Q}.quant_method.zero_point": True}, "awq", {"zero_point": True, "format": "awq"}),
        ({**AWQ, f"{Q}.quant_method.zero_point": False}, "awq", {"zero_point": False, "format": "compressed-tensors"}),
        ({**AWQ, f"{Q}.quant_method.mse_range": True}, "awq", {"mse_range": True}),
        ({**AWQ, f"{Q}.bits": 8}, "awq", {"bits": 8, "zero_point": False, "format": "compressed-tensors"}),
        (FP8, "fp8", {"activation_scheme": "static", "weight_strategy": "tensor"}),
        ({**FP8, f"{Q}.save_name": "fp8"}, "fp8", {"format": "fp8"}),
        ({**FP8, f"{Q}.quant_method.weight": "per-channel"}, "fp8", {"weight_strategy": "channel"}),
        ({**FP8, f"{Q}.quant_method": None}, "fp8", {"activation_scheme": "static"}),
        ({**FP8, f"{Q}.name": "fp8_dynamic"}, "fp8", {"activation_scheme": "dynamic", "weight_strategy": "tensor"}),
        ({"compression.name": "quantization"}, "gptq", {"bits": 4}),
    ],
)
def test_options_mean_the_same_here(tmp_path: Path, edits: Edits, method: str, expected: dict[str, Any]) -> None:
    run = read(tmp_path, edits).run
    assert run.method == method
    config = load_method(method).config(run.options).model_dump()
    assert {key: config[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("layers", "ignore"),
    [
        (["lm_head"], ["lm_head"]),
        (["model.layers.0.mlp.down_proj"], ["model.layers.0.mlp.down_proj"]),
        (["vit.layers.1", "*.o_proj"], ["vit.layers.1", "*.o_proj"]),
        (["down_proj", "self_attn"], ["*down_proj*", "*self_attn*"]),
        (["lm_head", "model.embed_tokens", "model.language_model.embed_tokens"], ["lm_head"]),
    ],
)
def test_ignored_layers_are_whole_names_or_parts_of_them(tmp_path: Path, layers: list[str], ignore: list[str]) -> None:
    assert read(tmp_path, {f"{Q}.ignore_layers": layers}).run.options["ignore"] == ignore


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ({"globall": {}}, "globall: unknown key; did you mean global?"),
        ({"global.save_paht": "x"}, "global.save_paht: unknown key; did you mean save_path?"),
        ({"model.modle_path": "x"}, "model.modle_path: unknown key; did you mean model_path?"),
        ({"compression.quantisation": {}}, "compression.quantisation: unknown key; did you mean quantization?"),
        ({f"{Q}.ignore_layer": []}, f"{Q}.ignore_layer: unknown key; did you mean ignore_layers?"),
        ({f"{Q}.quant_method.group_sise": 64}, f"{Q}.quant_method.group_sise: unknown key; did you mean group_size?"),
        ({"dataset.num_sample": 1}, "dataset.num_sample: unknown key; did you mean num_samples?"),
        ({"inference": {}}, "inference: unknown key; valid keys: global, model, compression, dataset"),
        ({"compression.cache": {}}, "compression.cache: unknown key; valid keys: name, quantization"),
        ({"compression": None}, "compression: is missing"),
        ({f"{Q}.name": None}, f"{Q}.name: is missing"),
        ({f"{Q}.name": "int8_dynamic"}, f"{Q}.name = 'int8_dynamic': should be 'fp8_static', "),
        ({"compression.name": "QAT"}, "compression.name = 'QAT': should be 'PTQ' or 'quantization'"),
        ({"model.name": "QwenVL"}, "model.name = 'QwenVL': should be 'HunyuanVL'"),
        ({"dataset.name": "TextDataset"}, "dataset.name = 'TextDataset': should be 'MultiModalDataset'"),
        ({"dataset.num_samples": 0}, "dataset.num_samples = 0: should be greater than or equal to 1"),
        ({f"{Q}.bits": 3}, f"{Q}.bits = 3: should be 4 or 8"),
        ({f"{Q}.save_name": "gguf"}, f"{Q}.save_name = 'gguf': should be 'fp8' or 'compressed-tensors'"),
        ({"dataset": 3}, "dataset = 3: should be a mapping"),
    ],
)
def test_a_key_or_value_that_is_not_known_is_refused_at_any_depth(tmp_path: Path, edits: Edits, expected: str) -> None:
    assert problem(tmp_path, edits).startswith(expected)


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ({**FP8, f"{Q}.bits": 4}, "fp8_static stores 8 bits; write bits: 8, or name: int4_gptq or int4_awq"),
        ({**FP8, f"{Q}.quant_method.weight": "per-group"}, "fp8_static has no groups"),
        ({**FP8, f"{Q}.quant_method.group_size": 64}, "fp8_static has no groups"),
        ({**FP8, f"{Q}.quant_method.zero_point": True}, "fp8_static has neither zero_point nor mse_range"),
        ({**FP8, f"{Q}.quant_method.activation": "per-token"}, "fp8_static has one activation scale per tensor"),
        ({f"{Q}.quant_method.weight": "per-channel"}, "int4_gptq has scales per group; write weight: per-group"),
        ({**AWQ, f"{Q}.quant_method.activation": "per-tensor"}, "int4_awq leaves activations as they are"),
        ({f"{Q}.save_name": "fp8"}, "int4_gptq cannot be stored as fp8"),
        ({f"{Q}.bits": 8, f"{Q}.quant_method.zero_point": True}, "zero_point: true with bits: 8 is read by no runtime"),
    ],
)
def test_a_contradiction_is_refused_with_the_fix(tmp_path: Path, edits: Edits, expected: str) -> None:
    assert problem(tmp_path, edits).startswith(f"{Q}: {expected}")


@pytest.mark.parametrize(
    ("edits", "subject"),
    [
        ({"model.trust_remote_code": True}, "model.trust_remote_code: "),
        ({"model.low_cpu_mem_usage": False}, "model.low_cpu_mem_usage: "),
        ({"model.use_cache": True}, "model.use_cache: "),
        ({"model.torch_dtype": "float16"}, "model.torch_dtype: "),
        ({"model.device_map": "cuda:0"}, "model.device_map: "),
        ({"model.device_map": {"": 0}}, "model.device_map: "),
        ({"dataset.max_seq_length": 2048}, "dataset.max_seq_length: no sample is padded"),
        ({"dataset.batch_size": 8}, "dataset.batch_size: "),
        ({f"{Q}.bits": 8}, f"{Q}.bits: 8 bits are stored, whatever the name int4_gptq says"),
        ({f"{Q}.quant_method.zero_point": True}, f"{Q}.quant_method.zero_point: stored as compressed-tensors"),
        ({f"{Q}.ignore_layers": ["model.embed_tokens"]}, f"{Q}.ignore_layers: embeddings are never quantized"),
        ({**FP8, f"{Q}.name": "fp8_dynamic"}, f"{Q}.quant_method.activation: dynamic activation scales are per token"),
    ],
)
def test_a_key_that_is_honoured_differently_is_noted_once(tmp_path: Path, edits: Edits, subject: str) -> None:
    (note,) = read(tmp_path, edits).notes
    assert note.startswith(subject)


@pytest.mark.parametrize("name", ["fp8.yaml", "run.v2.yml", "bare"])
def test_it_writes_into_a_folder_of_the_name_of_the_file(tmp_path: Path, name: str) -> None:
    read(tmp_path, {"global.save_path": "~/models"})
    file = (tmp_path / "reference.yaml").rename(tmp_path / name)
    stem = name.removesuffix(".yaml").removesuffix(".yml")
    assert merge_run_config(file, {}, []).run.output == Path("~/models") / stem
    assert merge_run_config(file, {"output": "here"}, []).run.output == Path("here")


@pytest.mark.parametrize(
    ("data_path", "calib"),
    [
        ("HuggingFaceM4/ChartQA", "hf:HuggingFaceM4/ChartQA:test?prompt=query&text=label"),
        ("charts", "hf:charts:test?prompt=query&text=label"),
        ("some/pages", "some/pages"),
        ("some/rows.jsonl", "some/rows.jsonl"),
        ("./pages", "./pages"),
        ("a/b/c", "a/b/c"),
        ("synthetic:4", "synthetic:4"),
    ],
)
def test_a_dataset_is_read_as_the_reference_does(
    tmp_path: Path, data_path: str, calib: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "charts" / "data").mkdir(parents=True)
    (tmp_path / "charts" / "data" / "test-00000-of-00001.parquet").touch()
    (tmp_path / "some" / "pages").mkdir(parents=True)
    (tmp_path / "some" / "rows.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    run, notes = read(tmp_path, {"dataset.data_path": data_path})
    assert run.calib == calib
    told = f"dataset.data_path: calibrates on the split test of {data_path}: evaluate on other pages"
    assert list(notes) == ([told] if calib != data_path else [])


def test_every_key_is_described() -> None:
    schema = ReferenceFile.model_json_schema(by_alias=True)
    parts = [schema, *schema["$defs"].values()]
    assert len(parts) == 7
    assert [key for part in parts for key, field in part["properties"].items() if not field.get("description")] == []


def test_keys_that_say_what_is_done_anyway_are_not_noted(tmp_path: Path) -> None:
    model = {"trust_remote_code": False, "low_cpu_mem_usage": True, "use_cache": False, "torch_dtype": "auto"}
    edits = {f"model.{key}": value for key, value in (model | {"device_map": "auto"}).items()}
    assert read(tmp_path, {**edits, "dataset.batch_size": 1}).notes == ()


def test_flags_and_overrides_win_over_the_file(tmp_path: Path) -> None:
    flags = {"model": "other", "calib": "scans", "output": "out", "num_samples": 3, "seed": 5}
    run = read(tmp_path, {"dataset.num_samples": 7}, flags=flags, overrides=["group_size=32"]).run
    assert (run.model, run.calib, run.output, run.num_samples, run.seed) == ("other", "scans", Path("out"), 3, 5)
    assert run.options["group_size"] == 32


def test_a_flag_for_the_method_wins_over_the_file(tmp_path: Path) -> None:
    run = read(tmp_path, FP8, flags={"method": "fp8_dynamic"}).run
    assert (run.method, run.options["activation_scheme"]) == ("fp8", "dynamic")
    run = read(tmp_path, {}, flags={"method": "int4_awq"}).run
    assert (run.method, run.options["group_size"]) == ("awq", 128)
