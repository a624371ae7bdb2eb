"""What `hyocr verify` once called sound: found beside the original without a report, and by the report alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hyocr_core.formats import IntegerFormat
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.verification.subject import Subject
from hyocr_core.verification.verify import verify

if TYPE_CHECKING:
    from tests.conftest import Edit
    from tests.verification.conftest import Tensors

pytestmark = pytest.mark.needs_methods

PACKED = {"format": "compressed-tensors"}
MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "gptq": ("gptq", {}),
    "gptq-zeros": ("gptq", {**PACKED, "sym": False}),
    "awq": ("awq", {}),
    "awq-packed": ("awq", {**PACKED, "zero_point": False}),
    "fp8": ("fp8", {}),
    "fp8-own": ("fp8", {"format": "fp8"}),
    "rtn": ("rtn", {}),
    "rtn-8": ("rtn", {**PACKED, "bits": 8}),
}
ZEROS = ("gptq", "gptq-zeros", "awq")
STATIC = ("fp8", "fp8-own")
LAYER = "model.layers.1.self_attn.q_proj"
OTHER = "model.layers.2.self_attn.q_proj"
CODES = ("qweight", "weight_packed", "weight")
SCALES = ("scales", "weight_scale")
NORM = "layernorm.weight"

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def made(demo: Path, calib: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The demo by a method, quantized when it is asked for first."""
    folder = tmp_path_factory.mktemp("made")

    def get(name: str) -> Path:
        method, options = MADE[name]
        run = {"model": str(demo), "output": folder / name, "method": method, "options": options, "calib": calib}
        if not (folder / name).exists():
            quantize(RunConfig(**run, num_samples=8, device="cpu"))
        return folder / name

    return get


def tensors(edit: Callable[[Tensors], object]) -> Damage:
    def damage(folder: Path) -> None:
        loaded = load_file(folder / "model.safetensors")
        edit(loaded)
        save_file(loaded, folder / "model.safetensors", metadata={"format": "pt"})

    return damage


def times(factor: float, parts: tuple[str, ...], within: str = "") -> Damage:
    """Multiply every tensor whose name ends so."""

    def edit(found: Tensors) -> None:
        names = [name for name in found if name.endswith(parts) and name.startswith(within)]
        assert names
        for name in names:
            found[name] = (found[name].float() * factor).to(found[name].dtype)

    return tensors(edit)


@tensors
def one_code(found: Tensors) -> None:
    """Of 4 bits the highest, of 8-bit floats the exponent's lowest: either is 8 codes away."""
    name = next(f"{LAYER}.{local}" for local in CODES if f"{LAYER}.{local}" in found)
    found[name].view(torch.uint8).view(-1)[4 * 777] ^= 8


@tensors
def swapped(found: Tensors) -> None:
    for name in [name for name in found if name.startswith(f"{LAYER}.")]:
        other = name.replace(LAYER, OTHER)
        found[name], found[other] = found[other], found[name]


def zeros(off: int) -> Damage:
    """Move all zero points."""

    def damage(folder: Path) -> None:
        subject = Subject(folder)
        changed: Tensors = {}
        for linear in subject.readable.values():
            assert isinstance(linear.format, IntegerFormat)
            codes, grid = linear.format.unpack(subject.packed(linear))
            moved = replace(grid, zeros=((grid.zeros.int() + off) & grid.max_code).to(torch.uint8))
            changed |= {linear.packed[local]: value for local, value in linear.format.pack(codes, moved).items()}
        tensors(lambda found: found.update(changed))(folder)

    return damage


def setting(file: str, *path: str, value: object) -> Damage:
    def damage(folder: Path) -> None:
        whole = json.loads((folder / file).read_text(encoding="utf-8"))
        place = whole
        for key in path[:-1]:
            place = place[key]
        assert place[path[-1]] != value
        place[path[-1]] = value
        (folder / file).write_text(json.dumps(whole), encoding="utf-8")

    return damage


def without(file: str) -> Damage:
    return lambda folder: (folder / file).unlink()


def template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text(encoding="utf-8").replace("<｜hy_User｜>", "<｜hy_Assistant｜>"), encoding="utf-8")


def vocabulary(folder: Path) -> None:
    """Two words change places."""
    whole = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    words = whole["model"]["vocab"]
    first, second = list(words)[40:42]
    words[first], words[second] = words[second], words[first]
    (folder / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")


EVERYWHERE: dict[str, Damage] = {
    "one-code-off-by-8": one_code,
    "all-scales-times-1.3": times(1.3, SCALES),
    "scales-of-a-layer-times-0.7": times(0.7, SCALES, LAYER),
    "layers-swapped": swapped,
    "norms-times-1.35": times(1.35, (NORM,), "model.layers"),
}
FILES: dict[str, Damage] = {
    "rope-theta": setting("config.json", "text_config", "rope_parameters", "rope_theta", value=5000.0),
    "norm-eps": setting("config.json", "text_config", "rms_norm_eps", value=1e-3),
    "vision-eps": setting("config.json", "vision_config", "rms_norm_eps", value=1e-3),
    "image-token": setting("config.json", "image_token_id", value=266),
    "end-of-generation": setting("generation_config.json", "eos_token_id", value=[260]),
    "no-generation-config": without("generation_config.json"),
    "template": template,
    "vocabulary": vocabulary,
    "no-tokenizer": without("tokenizer.json"),
    "pixels": setting("processor_config.json", "image_processor", "size", "longest_edge", value=65536),
}
CASES = [
    *((name, kind, damage) for name in MADE for kind, damage in EVERYWHERE.items()),
    *((name, f"zeros{off:+d}", zeros(off)) for name in ZEROS for off in (1, -1)),
    *((name, f"inputs-times-{by:g}", times(by, ("input_scale",))) for name in STATIC for by in (0.001, 100)),
    *(("awq", f"{kind}-times-{by:g}", times(by, parts, within)) for kind, parts, within in (
        ("norm", ("2.input_layernorm.weight",), ""), ("scales", SCALES, "model.layers.3.mlp.down_proj")
    ) for by in (1.35, 0.7)),
    ("gptq", "gptq_v2", setting("config.json", "quantization_config", "checkpoint_format", value="gptq_v2")),
    *(("gptq", kind, damage) for kind, damage in FILES.items()),
]  # fmt: skip


def faults(folder: Path, original: Path | None) -> list[str]:
    found = verify(folder, original=None if original is None else str(original)).faults
    return [f"{fault.place}: {fault.problem}" for fault in found]


@pytest.mark.parametrize(("name", "damage"), [(name, damage) for name, _, damage in CASES],
                         ids=[f"{name}-{kind}" for name, kind, _ in CASES])  # fmt: skip
def test_damage_is_found_beside_the_original(
    name: str, damage: Damage, made: Callable[[str], Path], demo: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(made(name), tmp_path / "copy")
    (folder / "hyocr_report.json").unlink()
    damage(folder)
    found = faults(folder, demo)
    assert found
    assert all(len(line) < 400 for line in found)


@pytest.mark.parametrize("name", MADE)
def test_without_damage_nothing_is(name: str, made: Callable[[str], Path], demo: Path, tmp_path: Path) -> None:
    assert faults(made(name), demo) == []
    folder = shutil.copytree(made(name), tmp_path / "copy")
    (folder / "hyocr_report.json").unlink()
    assert faults(folder, demo) == []


@pytest.mark.parametrize("damage", [*FILES.values(), one_code, swapped], ids=[*FILES, "one-code", "swapped"])
def test_its_own_report_finds_any_changed_file(damage: Damage, made: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(made("rtn"), tmp_path / "copy")
    damage(folder)
    first = faults(folder, None)[0]
    assert first.endswith(("has other bytes than hyocr wrote (SHA-256 differs)", "is missing, hyocr wrote it"))


def test_a_file_that_joined_is_found(made: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(made("rtn"), tmp_path / "copy")
    (folder / "notes.txt").write_text("mine")
    assert faults(folder, None) == []
    (folder / "adapter_config.json").write_text("{}")
    assert faults(folder, None) == [
        "adapter_config.json: is none of the files that hyocr wrote, and a runtime may read it"
    ]


def test_a_report_cannot_name_files_elsewhere(made: Callable[[str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(made("rtn"), tmp_path / "copy")
    setting("hyocr_report.json", "output_sha256", "../secret", value="0")
    report = json.loads((folder / "hyocr_report.json").read_text())
    report["output_sha256"]["../secret"] = "0"
    (folder / "hyocr_report.json").write_text(json.dumps(report))
    assert faults(folder, None) == ["hyocr_report.json: names '../secret', which is outside of the folder"]


@pytest.mark.parametrize("method", ["rtn", "gptq", "awq", "fp8"])
def test_large_weights_of_the_original_are_no_fault(
    method: str, edited_demo: Callable[[Edit], Path], calib: str, tmp_path: Path
) -> None:
    def enlarge(found: Tensors) -> None:
        found["model.layers.3.mlp.down_proj.weight"][7] *= 1e5
        found["model.layers.2.self_attn.q_proj.weight"][3, 5] = 70_000.0

    model, output = edited_demo(enlarge), tmp_path / "out"
    quantize(RunConfig(model=str(model), output=output, method=method, calib=calib, num_samples=4, device="cpu"))
    assert faults(output, None) == []
    assert faults(output, model) == []
    (output / "hyocr_report.json").unlink()
    assert faults(output, model) == []
