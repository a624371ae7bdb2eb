"""What every method has to keep, as a class of tests that a plugin derives from; see `MethodContract`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from hyocr_core.contract.types import Batch, Block
from hyocr_core.errors import ConfigError
from hyocr_core.kit.smoothing import exact_output
from hyocr_core.kit.statistics import merge
from hyocr_core.plugin.registry import installed_methods, load_method
from hyocr_core.plugin.results import bits_differ
from hyocr_core.settings.eval_config import EvalConfig
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.testing.bench import (
    Bench,
    Quantized,
    block_error,
    failing_in_one_line,
    left_alone,
    refusals_allowed,
    require,
    rounded_to_nearest,
    sums_differ,
    tensors_in,
)
from hyocr_core.testing.jobs import file_digests, quantize_in_one_line, resume_in_a_new_process, stop_after_one_block
from hyocr_core.testing.tiny import PAGES, lone_block, open_block, random_weight, shared_checkpoint

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
HEAVY = ("torch", "transformers")
IMPORTS = """
import json, sys
from hyocr_core.plugin.results import bits_differ
from hyocr_core.plugin.registry import load_method
method = load_method(sys.argv[1])
method.config(json.loads(sys.argv[2]))
print(*(name for name in sys.argv[3:] if name in sys.modules))
"""
EXACT = 1e-3
"""How much rescaling may change a block's output in fp32, relative: folding into bf16 weights rounds them once more."""

NOISE = 1.05
"""How far above round-to-nearest an error may be and still count as the same."""


class MethodContract:
    """Derive `class TestContract(MethodContract)`, name the method, and pytest checks all that the contract asks.

    method: the entry point's name, or `distribution:name`.
    config: options to test with; derive another class for every other combination worth testing.
    error_bound: what the method promises, on a small random block: the norm of the change in what the block adds to
    its inputs, over the norm of that. Rounding to nearest leaves 0.21 with 4 bits and groups of 32, 0.015 with 8 bits,
    0.06 with FP8 weights, 0.08 with FP8 activations too.
    bits, group_size: the plain rounding that the error may not be above; None takes the config's keys of these names,
    and compares with nothing when there is no `bits`. Override `nearest` for codes that are no integers.
    kl: the most that the quantized random checkpoint's predictions may diverge from the unquantized one's, mean per
    token in nats. Rounding to nearest leaves 0.26 with 4 bits and groups of 32, 0.002 with 8 bits, 0.06 with FP8.
    shapes: (N, K) of linears that the method has to quantize or to refuse by a HyocrError.
    cer: percentage points that the character error rate may rise by, on a checkpoint that reads; see `test_it_reads`.
    """

    method: ClassVar[str]
    config: ClassVar[Mapping[str, Any]] = {}
    error_bound: ClassVar[float] = 0.3
    bits: ClassVar[int | None] = None
    group_size: ClassVar[int | None] = None
    kl: ClassVar[float] = 0.5
    shapes: ClassVar[Sequence[tuple[int, int]]] = (
        (1, 1),
        (3, 5),
        (1, 128),
        (128, 1),
        (33, 96),
        (40, 32),
        (72, 320),
        (264, 256),
    )
    cer: ClassVar[float] = 2.0

    @pytest.fixture
    def hyocr_checkpoint(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """As in `hyocr_core.testing.plugin`; here, so that the class works without it."""
        return shared_checkpoint(tmp_path_factory.getbasetemp())

    @pytest.fixture
    def hyocr_block(self, hyocr_checkpoint: Path) -> Iterator[tuple[Block, list[Batch]]]:
        with open_block(hyocr_checkpoint) as opened:
            yield opened

    def nearest(self, weight: Tensor) -> Tensor | None:
        """The weight (N, K) rounded to nearest in as many bits; None: there is nothing to compare with."""
        config = self._bench().config
        bits: int | None = self.bits or getattr(config, "bits", None)
        group_size = self.group_size or int(getattr(config, "group_size", -1))
        return None if bits is None else rounded_to_nearest(weight, bits, group_size)

    @pytest.fixture
    def bench(self) -> Bench:
        """The method, loaded, with its options."""
        return self._bench()

    @pytest.fixture
    def straight(self, hyocr_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The random checkpoint quantized in one go, once for all tests of the class."""
        cls = type(self)
        output = tmp_path_factory.getbasetemp() / f"{cls.__module__}.{cls.__qualname__}" / "out"
        if not output.exists():
            output.parent.mkdir(exist_ok=True)
            quantize_in_one_line(self._run(hyocr_checkpoint, output))
        return output

    def test_the_plugin_is_accepted(self) -> None:
        """Its entry point, spec, config class and hooks are as the contract has them.

        The name of the spec is that of the entry point; the config forbids unknown keys and describes each key; hooks
        are spelt right, none is missing, and their parameters are plain ones of the hook.
        """
        entry = self._bench().method.entry
        rivals = [other.source for other in installed_methods() if other.name == entry.name and other != entry]
        require(not rivals, f"{entry}: {' and '.join(rivals)} offers the name too")

    def test_importing_it_imports_no_torch(self, bench: Bench) -> None:
        """Listing methods and printing schemas stay instant: torch is imported inside the hooks that compute."""
        command = [sys.executable, "-c", IMPORTS, bench.method.entry.selector, json.dumps(dict(self.config)), *HEAVY]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        require(done.returncode == 0, f"a new process cannot load the method: {done.stderr.strip()[-500:]}")
        found = done.stdout.split()
        require(not found, f"importing the plugin imports {' and '.join(found)}; import that inside the hooks")

    def test_options_are_strict_and_survive_the_report(self, bench: Bench) -> None:
        """An unknown key is refused in one line; what a checkpoint's report keeps of the options gives them back."""
        try:
            bench.method.config({**self.config, "no_such_option": 1})
        except ConfigError as error:
            require("no_such_option" in str(error) and "\n" not in str(error), f"the refusal is no one line: {error}")
        else:
            pytest.fail("an unknown option is accepted", pytrace=False)
        kept = json.loads(json.dumps(bench.config.model_dump(mode="json")))
        again = bench.method.config(kept)
        require(again == bench.config, f"the options {bench.config!r} come back from JSON as {again!r}")

    def test_unpack_gives_the_packed_weight_bit_for_bit(self, bench: Bench, hyocr_checkpoint: Path) -> None:
        """In every dtype of weights that the method takes; bfloat16, the published one, it has to."""
        for dtype in DTYPES:
            with _opened(hyocr_checkpoint, dtype) as (block, batches), _allowing(dtype != torch.bfloat16):
                for item in bench.quantize(block, batches):
                    problem = bench.unpack_problem(item, item.packed)
                    require(not problem, f"{item.layer.name}, {dtype}: unpack does not invert pack: {problem}")

    def test_packed_tensors_survive_a_file(
        self, bench: Bench, hyocr_block: tuple[Block, list[Batch]], tmp_path: Path
    ) -> None:
        """Of safetensors, which stores neither views of shared memory nor strides."""
        from safetensors.torch import load_file, save_file

        for item in bench.quantize(*hyocr_block):
            try:
                save_file(item.packed, tmp_path / "layer.safetensors")
            except (ValueError, RuntimeError) as error:
                pytest.fail(f"{item.layer.name}: safetensors refuses what pack returns: {error}", pytrace=False)
            problem = bench.unpack_problem(item, load_file(tmp_path / "layer.safetensors"))
            require(not problem, f"{item.layer.name}: a file gives another weight back: {problem}")

    def test_hooks_leave_alone_what_they_are_given(self, bench: Bench, hyocr_block: tuple[Block, list[Batch]]) -> None:
        """Samples, statistics, weights, results and packed tensors are others' too; packed tensors are copies."""
        block, batches = hyocr_block
        for part, seen in bench.parts(block, batches):
            samples = {batch.name: [batch.hidden_states, batch.reference, batch.context] for batch in seen}
            with left_alone("calibrate or settle", **samples):
                stats = bench.calibrate(part, seen)
            weights = {name: linear.weight.detach() for name, linear in part.layers.items()}
            with left_alone("quantize_group or quantize_layer", stats=stats, weights=weights):
                items = [item for group in part.groups for item in bench.quantize_group(part, group, stats)]
            for item in items:
                _pack_again(bench, item, batches[0].hidden_states)

    def test_statistics_of_parts_add_up(self, bench: Bench, hyocr_block: tuple[Block, list[Batch]]) -> None:
        """What `calibrate` gathers of two sets of samples, merged as each Stat says, is what it gathers of both.

        So that several processes can share the samples of a run.
        """
        if not bench.calibrates:
            pytest.skip("the method does not calibrate with these options")
        for part, seen in bench.parts(*hyocr_block):
            whole = bench.collect(part, seen)
            merged = merge(bench.collect(part, seen[:1]), bench.collect(part, seen[1:]))
            for name, stats in whole.items():
                for key, stat in stats.items():
                    problem = sums_differ(merged[name][key].value, stat.value)
                    require(not problem, f"{name}: {key} of two sets of samples do not make that of both: {problem}")
            bench.quantize_part(part, seen)

    def test_the_same_input_gives_the_same_bytes(self, bench: Bench, hyocr_checkpoint: Path) -> None:
        """Whatever the state of the random generators: a method that draws numbers seeds a generator of its own."""
        found = []
        for seed in (1, 2):
            with open_block(hyocr_checkpoint) as (block, batches), torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                found.append(bench.quantize(block, batches))
        for first, second in zip(*found, strict=True):
            require(first.packed.keys() == second.packed.keys(), f"{first.layer.name}: other tensors the second time")
            for name, tensor in first.packed.items():
                problem = bits_differ(second.packed[name], tensor)
                require(not problem, f"{first.layer.name}: {name} is another one the second time: {problem}")

    def test_odd_shapes_work_or_are_refused(self, bench: Bench) -> None:
        """Every one of `shapes`, and in the same way twice: what cannot be held is refused by a HyocrError."""
        for shape in self.shapes:
            self._try(bench, random_weight(shape, torch.bfloat16))

    def test_weights_of_zeros_work_or_are_refused(self, bench: Bench) -> None:
        """A pruned layer, and a pruned output channel, have no largest weight to divide by."""
        pruned = random_weight((128, 128), torch.bfloat16)
        pruned[3] = 0
        for weight in (torch.zeros_like(pruned), pruned):
            self._try(bench, weight)

    def test_error_is_within_the_bound(self, bench: Bench, hyocr_block: tuple[Block, list[Batch]]) -> None:
        """The block with all its linears quantized, and their inputs if runtimes do that, is within `error_bound`."""
        error, _ = _error(bench, *hyocr_block)
        require(error <= self.error_bound, f"the block's error is {error:.4f}, above the bound of {self.error_bound}")

    def test_error_is_not_above_round_to_nearest(
        self, bench: Bench, hyocr_checkpoint: Path, hyocr_block: tuple[Block, list[Batch]]
    ) -> None:
        """With as many bits, plain rounding is what every method has to beat or equal; of inputs both see the same."""
        error, items = _error(bench, *hyocr_block)
        with open_block(hyocr_checkpoint) as (block, batches):
            exact = [exact_output(block, batch) for batch in batches]
            for linear in block.layers.values():
                rounded = self.nearest(linear.weight.detach())
                if rounded is None:
                    pytest.skip("`bits` is not given and no option: there is no rounding to compare with")
                linear.weight.data = rounded
            with bench.emulated(block, items):
                floor = block_error(exact, block, batches)
        require(error <= NOISE * floor, f"the block's error is {error:.4f}, that of rounding to nearest {floor:.4f}")

    def test_rescaling_preserves_the_block(self, bench: Bench, hyocr_checkpoint: Path) -> None:
        """A method that says `rescales_block` leaves what the block computes as it is, any other the block itself."""
        if not bench.calibrates:
            pytest.skip("the method does not calibrate with these options")
        with _opened(hyocr_checkpoint, torch.float32) as (block, batches), _allowing(True):
            before = {name: parameter.detach().clone() for name, parameter in block.module.named_parameters()}
            exact = [exact_output(block, batch) for batch in batches]
            for part, seen in bench.parts(block, batches):
                bench.calibrate(part, seen)
            change = block_error(exact, block, batches)
            require(change <= EXACT, f"settle changed the block's output by {change:.2%}, in float32")
            if not bench.method.spec.rescales_block:
                problems = [name for name, old in before.items() if bits_differ(block.module.get_parameter(name), old)]
                require(not problems, f"settle changed {problems[:1]}, but the spec does not say rescales_block")

    def test_an_interrupted_run_resumes_to_the_same_bytes(
        self, straight: Path, hyocr_checkpoint: Path, tmp_path: Path
    ) -> None:
        """Stopped between two blocks and gone on in another process, a run writes what an uninterrupted one does."""
        run = self._run(hyocr_checkpoint, tmp_path / "out")
        stop_after_one_block(run)
        resume_in_a_new_process(run)
        found, due = file_digests(run.output), file_digests(straight)
        wrong = sorted(name for name in found.keys() | due.keys() if found.get(name) != due.get(name))
        require(not wrong, f"{', '.join(wrong)}: other bytes than an uninterrupted run writes")

    def test_the_checkpoint_is_sound(self, straight: Path, hyocr_checkpoint: Path) -> None:
        """`hyocr verify OUT --original MODEL` finds no fault."""
        from hyocr_core.verification.verify import verify

        faults = verify(straight, original=str(hyocr_checkpoint)).faults
        require(not faults, "".join(f"{fault.place}: {fault.problem}\n" for fault in faults[:5]))

    def test_the_checkpoint_computes_what_the_original_does(self, straight: Path, hyocr_checkpoint: Path) -> None:
        """Forced along the original's answers, its predictions diverge from the original's by at most `kl`.

        The random checkpoint reads nothing, but whatever breaks a model that does, breaks it too.
        """
        from hyocr_core.evaluation.evaluate import evaluate

        original = str(hyocr_checkpoint)
        config = EvalConfig(model=str(straight), data=PAGES, baseline=original, num_samples=4, max_new_tokens=24)
        comparison = evaluate(config).comparison
        found = comparison.kl if comparison is not None else None
        require(
            found is not None and found <= self.kl,
            f"the predictions diverge from the original's by {found} nats per token, {self.kl} are allowed",
        )

    def test_it_reads(self, tmp_path: Path) -> None:
        """On a checkpoint that reads, the character error rate rises by at most `cer` percentage points.

        The checkpoint is the environment's HYOCR_TEST_CHECKPOINT, read are the pages of HYOCR_TEST_PAGES (at most 64),
        which need transcripts, calibrated is on those of HYOCR_TEST_CALIB; all as `hyocr quant` and `eval` take them.
        """
        from hyocr_core.evaluation.evaluate import evaluate

        model, pages = os.environ.get("HYOCR_TEST_CHECKPOINT"), os.environ.get("HYOCR_TEST_PAGES")
        if not model or not pages:
            pytest.skip("set HYOCR_TEST_CHECKPOINT and HYOCR_TEST_PAGES to a checkpoint that reads and pages to read")
        run = self._run(Path(model), tmp_path / "out", calib=os.environ.get("HYOCR_TEST_CALIB", "synthetic"))
        quantize_in_one_line(run.model_copy(update={"num_samples": 16}))
        config = EvalConfig(model=str(run.output), data=pages, baseline=model, num_samples=64)
        comparison = evaluate(config).comparison
        rise = comparison.cer_difference if comparison is not None else None
        require(rise is not None, f"{pages}: without transcripts there is no character error rate")
        points = 100 * (rise or 0.0)
        require(points <= self.cer, f"the character error rate rises by {points:.2f} points, {self.cer} are allowed")

    @classmethod
    def _bench(cls) -> Bench:
        name = getattr(cls, "method", None)
        require(isinstance(name, str), f'{cls.__name__} names no method; write `method = "mymethod"` in the class')
        with failing_in_one_line():
            method = load_method(str(name))
            return Bench(method, method.config(cls.config))

    @classmethod
    def _run(cls, model: Path, output: Path, calib: str = PAGES) -> RunConfig:
        given = {"model": str(model), "output": output, "method": cls.method, "options": dict(cls.config)}
        return RunConfig.model_validate({**given, "calib": calib, "num_samples": 4, "device": "cpu"})

    def _try(self, bench: Bench, weight: Tensor) -> None:
        block, batches = lone_block(weight)
        with refusals_allowed():
            [item] = bench.quantize(block, batches)
            problem = bench.unpack_problem(item, item.packed)
            require(not problem, f"{tuple(weight.shape)}: unpack does not invert pack: {problem}")


@contextmanager
def _opened(checkpoint: Path, dtype: torch.dtype) -> Iterator[tuple[Block, list[Batch]]]:
    """A block, and its samples, in another dtype than that of the checkpoint."""
    with open_block(checkpoint) as (block, batches):
        block.module.to(dtype)
        yield block, [_cast(batch, dtype) for batch in batches]


def _cast(batch: Batch, dtype: torch.dtype) -> Batch:
    context = {name: tuple(part.to(dtype) for part in value) for name, value in batch.context.items()}
    return Batch(batch.name, batch.hidden_states.to(dtype), context)


@contextmanager
def _allowing(refusals: bool) -> Iterator[None]:
    if refusals:
        with refusals_allowed():
            yield
    else:
        yield


def _error(bench: Bench, block: Block, batches: Sequence[Batch]) -> tuple[float, list[Quantized]]:
    """The block's error with all its linears quantized, and their inputs too where runtimes do that."""
    exact = [exact_output(block, batch) for batch in batches]
    items = bench.quantize(block, batches)
    with bench.emulated(block, items):
        return block_error(exact, block, batches), items


def _pack_again(bench: Bench, item: Quantized, states: Tensor) -> None:
    """Call the hooks that take a result or packed tensors once more, and write into what `pack` returned."""
    result = item.result
    with left_alone("pack", result=result.tensors, dequantized=result.dequantized):
        packed = bench.method.pack(result, bench.config)
    with left_alone("unpack", tensors=packed):
        bench.method.unpack(packed, item.layer.spec, bench.config)
    if bench.method.implements("quantize_inputs"):
        inputs = states[..., :1].expand(*states.shape[:-1], item.layer.weight.shape[1]).contiguous()
        with left_alone("quantize_inputs", inputs=inputs, tensors=packed):
            bench.method.quantize_inputs(inputs, packed, bench.config, item.layer.name)
    with left_alone("pack: its result shares memory with the layer and so", result=result.tensors):
        for _, tensor in tensors_in(packed):
            tensor.zero_()
