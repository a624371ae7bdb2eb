"""Observers against sorted lists and brute force; calibration on a small attention block."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hyocr_plugin_fp8.config import Fp8Config
from hyocr_plugin_fp8.observers import Fit, Magnitudes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hyocr_core import Batch, Batches, Block, RunError, Stats
from hyocr_core.kit import merge, values_of
from hyocr_core.plugin.registry import load_method

METHOD = load_method("fp8")
ABSMAX = Fp8Config()
MSE = Fp8Config(observer="mse")


def percentile_config(percent: float) -> Fp8Config:
    return Fp8Config(observer="percentile", percentile=percent)


def fit_of(magnitudes: Magnitudes, config: Fp8Config, dtype: torch.dtype = torch.float32) -> Fit:
    """What is fitted to all that was seen, as it leaves `calibrate`."""
    collected = magnitudes.collected("x")
    assert collected is not None
    fit = Fit.of(collected["x_largest"].value, collected["x_counts"].value, config, dtype)
    assert fit is not None
    return fit


def fitted(chunks: list[Tensor], config: Fp8Config, dtype: torch.dtype = torch.float32, every: int = 1) -> Tensor:
    magnitudes = Magnitudes(every=every)
    for chunk in chunks:
        magnitudes.add(chunk)
    return fit_of(magnitudes, config, dtype).scale


def heavy_tailed(tokens: int, channels: int, seed: int = 0) -> Tensor:
    gen = torch.Generator().manual_seed(seed)
    values = torch.randn(tokens, channels, generator=gen)
    values[0] *= 300
    values[:, ::29] *= 12
    return values.bfloat16()


def error_of(values: Tensor, scale: float) -> float:
    """Sum of squared errors of rounding to E4M3, by torch's own cast."""
    rounded = (values.double() / scale).clamp(-448, 448).float().to(torch.float8_e4m3fn).double() * scale
    return float((values.double() - rounded).square().sum())


@pytest.mark.parametrize("every", [1, 16])
def test_absmax_is_the_largest_value_of_all_rows(every: int) -> None:
    chunks = [heavy_tailed(n, 8, seed=n) for n in (1, 17, 40)]
    chunks[1][13, 5] = -7777
    expected = max(chunk.abs().max().item() for chunk in chunks)
    assert fitted(chunks, ABSMAX, every=every) * 448 == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-60000, 60000, width=16), min_size=1, max_size=60),
    st.sampled_from([0.1, 25.0, 50.0, 99.0, 99.99, 100.0]),
)
def test_percentile_is_the_value_at_the_nearest_rank(values: list[float], percent: float) -> None:
    seen = torch.tensor(values).bfloat16()
    ordered = sorted(seen.abs().tolist())
    expected = ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1] or ordered[-1] or 448
    half = len(values) // 2
    chunks = [chunk.reshape(-1, 1) for chunk in (seen[:half], seen[half:])]
    assert fitted(chunks, percentile_config(percent)) * 448 == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-6000, 6000, width=16), st.integers(0, 5)), min_size=1, max_size=40),
    st.sampled_from([0.1, 25.0, 50.0, 99.0, 100.0]),
)
def test_a_token_of_weight_n_counts_as_n_tokens(rows: list[tuple[float, int]], percent: float) -> None:
    values = torch.tensor([[value, -value / 2] for value, _ in rows]).bfloat16()
    repeats = torch.tensor([weight for _, weight in rows])
    for config in (percentile_config(percent), MSE):
        weighted, repeated = Magnitudes(every=1), Magnitudes(every=1)
        weighted.add(values[None], repeats.float() / 4)
        repeated.add(torch.cat([values.repeat_interleave(repeats, 0), torch.zeros(1, 2)]))
        repeated._largest = weighted._largest
        if repeats.sum() == 0:
            continue
        # The row of zeros, which is there so that there is one, must not count.
        assert repeated._counts is not None
        repeated._counts[0] -= 2
        found, expected = (fit_of(magnitudes, config) for magnitudes in (weighted, repeated))
        assert found.scale == expected.scale
        assert found.error.item() == pytest.approx(expected.error.item(), rel=1e-6)


def test_percentile_does_not_drown_in_the_number_of_tokens() -> None:
    chunks = [heavy_tailed(400, 64, seed) for seed in range(8)]
    whole = torch.cat(chunks).abs().float().flatten().sort().values
    expected = whole[math.ceil(len(whole) * 0.9999) - 1]
    assert fitted(chunks, Fp8Config(observer="percentile")) * 448 == pytest.approx(expected)


def test_wider_inputs_are_counted_to_within_a_step_of_bf16() -> None:
    values = torch.rand(1000, 7, generator=torch.Generator().manual_seed(3)) + 0.5
    expected = values.flatten().sort().values[math.ceil(7000 * 0.9) - 1].item()
    assert fitted([values], percentile_config(90)) * 448 == pytest.approx(expected, rel=2**-8)


@pytest.mark.parametrize("seed", range(4))
def test_mse_finds_the_least_error_there_is(seed: int) -> None:
    # Without the first rows: a few values that make up all the error make it jump from range to range.
    chunks = [heavy_tailed(600, 64, seed)[1:], heavy_tailed(300, 64, seed + 10)[1:]]
    values = torch.cat(chunks)
    found = fitted(chunks, MSE).item()
    largest = values.abs().max().item()
    errors = [error_of(values, largest / 448 * 2 ** (step / 100)) for step in range(-400, 101)]
    assert error_of(values, found) <= min(errors) * 1.03
    assert error_of(values, found) <= error_of(values, largest / 448)


def test_mse_keeps_an_outlier_that_percentile_cuts_off() -> None:
    small = 3e-3 * torch.rand(100_000, 1, generator=torch.Generator().manual_seed(1))
    chunks = [small, torch.tensor([[4.0]])]
    assert fitted(chunks, MSE) * 448 >= 4
    assert fitted(chunks, percentile_config(99.99)) * 448 <= 3e-3 * 1.01


@pytest.mark.parametrize("config", [ABSMAX, MSE, percentile_config(99)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_scales_come_in_the_dtype_asked_for_and_errors_are_true(config: Fp8Config, dtype: torch.dtype) -> None:
    values = heavy_tailed(50, 16)
    magnitudes = Magnitudes(every=1)
    magnitudes.add(values)
    fit = fit_of(magnitudes, config, dtype)
    assert fit.scale.dtype == dtype
    assert fit.scale.shape == ()
    expected = (error_of(values, fit.scale.item()) / values.double().square().sum().item()) ** 0.5
    assert fit.error.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("config", [ABSMAX, MSE, percentile_config(99)])
def test_zeros_give_a_usable_scale(config: Fp8Config) -> None:
    magnitudes = Magnitudes(every=1)
    magnitudes.add(torch.zeros(4, 8))
    fit = fit_of(magnitudes, config, torch.bfloat16)
    assert fit.scale == 1
    assert fit.error == 0


@pytest.mark.parametrize(("samples", "rows", "counted"), [(15, 15, 15), (16, 16, 16), (16, 32, 32), (16, 40, 40)])
def test_the_first_row_of_each_sample_is_not_favoured_by_the_sampling(samples: int, rows: int, counted: int) -> None:
    # The first row of each sample is 1, the others 0: with offsets spread evenly one sample shows it.
    sample = torch.zeros(rows, 1)
    sample[0] = 1
    magnitudes = Magnitudes(every=16)
    for offset in range(samples):
        magnitudes.add(sample, offset=100 * samples + offset)
    assert magnitudes._counts is not None
    assert magnitudes._counts.sum() == counted
    assert magnitudes._counts[int(torch.tensor(1.0).bfloat16().view(torch.int16))] == 1


class Attention(nn.Module):
    """As in the model: keys are normed before they are cached; no head and no softmax, which nothing here needs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.key_layernorm = nn.RMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        keys = self.key_layernorm(self.k_proj(x))
        mixed: Tensor = self.o_proj(self.q_proj(x) * keys + self.v_proj(x))
        return mixed


def toy_block(width: int = 32) -> Block:
    torch.manual_seed(5)
    module = Attention(width).bfloat16()
    names = {part: f"model.layers.0.self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj", "o_proj")}
    layers = {name: module.get_submodule(part) for part, name in names.items()}
    cached: dict[str, nn.Module] = {names["k_proj"]: module.key_layernorm, names["v_proj"]: module.v_proj}
    return Block(
        index=0,
        name="model.layers.0",
        module=module,
        layers=layers,  # type: ignore[arg-type]
        groups=((names["q_proj"], names["k_proj"], names["v_proj"]), (names["o_proj"],)),
        run=lambda batch: module(batch.hidden_states),
        cached=cached,
    )


def batches(width: int = 32) -> list[Batch]:
    return [Batch(f"s{n}", heavy_tailed(n, width, seed=n)[None], {}) for n in (3, 40, 21)]


def with_options(block: Block, options: dict[str, object]) -> Block:
    return replace(block, configs=dict.fromkeys(block.layers, METHOD.config(options)))


def stats_of(
    options: dict[str, object], block: Block | None = None, samples: Batches | None = None
) -> dict[str, Stats]:
    """What a run makes of its samples for each layer: gathered, then settled."""
    block, config = with_options(block or toy_block(), options), METHOD.config(options)
    samples = batches() if samples is None else samples
    return METHOD.settle(block, samples, values_of(METHOD.calibrate(block, samples, config)), config, 0)


def seen_by(block: Block, part: str, *, outputs: bool) -> Tensor:
    """Every input or output of a module over the batches, (tokens, width)."""
    found: list[Tensor] = []
    hook = block.module.get_submodule(part).register_forward_hook(
        lambda _module, args, output: found.append((output if outputs else args[0]).detach().flatten(0, -2))
    )
    with torch.no_grad():
        for batch in batches():
            block.run(batch)
    hook.remove()
    return torch.cat(found)


def test_input_scales_are_the_largest_inputs_and_shared_by_a_group() -> None:
    block = toy_block()
    stats = stats_of({}, block)
    for part in ("q_proj", "k_proj", "v_proj", "o_proj"):
        expected = (seen_by(block, part, outputs=False).abs().max() / 448).bfloat16()
        assert stats[f"model.layers.0.self_attn.{part}"]["input_scale"] == expected
    assert not any(name in own for own in stats.values() for name in ("k_scale", "v_scale"))


def test_each_layer_is_calibrated_by_its_own_options() -> None:
    block = toy_block()
    static, dynamic = (METHOD.config({"activation_scheme": scheme}) for scheme in ("static", "dynamic"))
    configs = {name: static if name.endswith("o_proj") else dynamic for name in block.layers}
    block = replace(block, configs=configs)
    stats = METHOD.settle(block, batches(), values_of(METHOD.calibrate(block, batches(), static)), static, 0)
    assert {name.rpartition(".")[2]: set(own) for name, own in stats.items()} == {
        "q_proj": set(),
        "k_proj": set(),
        "v_proj": set(),
        "o_proj": {"input_scale", "input_error", "hessian"},
    }


@pytest.mark.parametrize("scheme", ["static", "dynamic"])
def test_cache_scales_come_from_normed_keys_and_from_values(scheme: str) -> None:
    block = toy_block()
    stats = stats_of({"kv_cache": True, "activation_scheme": scheme}, block)
    keys, values = (seen_by(block, part, outputs=True).abs().max() for part in ("key_layernorm", "v_proj"))
    raw = seen_by(block, "k_proj", outputs=True).abs().max()
    group = stats["model.layers.0.self_attn.k_proj"]
    assert group["k_scale"] == (keys / 448).bfloat16()
    assert group["k_scale"] != (raw / 448).bfloat16()
    assert group["v_scale"] == (values / 448).bfloat16()
    assert "k_scale" not in stats["model.layers.0.self_attn.o_proj"]
    assert ("input_scale" in group) == (scheme == "static")


def test_weights_reach_inputs_and_cache() -> None:
    """Tokens of weight 0 are as good as left out; among them are the few that are far larger than the others."""
    options = {"kv_cache": True, "observer": "percentile", "percentile": 98}
    balanced = options | {"weighting": "balanced"}
    kept = [torch.arange(batch.hidden_states.shape[1]) > 0 for batch in batches()]
    pairs = list(zip(batches(), kept, strict=True))
    weighted = stats_of(balanced, samples=[replace(batch, weights=own.float()) for batch, own in pairs])
    fewer = [replace(batch, hidden_states=batch.hidden_states[:, own]) for batch, own in pairs]
    without = stats_of(balanced, samples=fewer)
    group, all_alike = "model.layers.0.self_attn.k_proj", stats_of(options)
    for name in ("input_scale", "k_scale", "v_scale", "input_error", "v_error"):
        assert weighted[group][name].item() == pytest.approx(without[group][name].item(), rel=0.01)
    for name in ("input_scale", "v_scale"):
        assert weighted[group][name].item() < 0.5 * all_alike[group][name].item()


def test_calibration_leaves_no_hooks_behind_and_repeats() -> None:
    block = toy_block()
    first, second = (stats_of({"kv_cache": True, "observer": "mse"}, block) for _ in range(2))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in block.module.modules())
    for name in first:
        assert first[name].keys() == second[name].keys()
        assert all(torch.equal(first[name][key], second[name][key]) for key in first[name])


@pytest.mark.parametrize("observer", ["absmax", "percentile", "mse"])
@pytest.mark.parametrize("weighted", [False, True])
def test_what_two_sets_of_samples_say_adds_up_to_what_both_say(observer: str, weighted: bool) -> None:
    """In any order: which rows are counted, and with which weight, is each sample's own."""
    options = {"kv_cache": True, "observer": observer}
    block, config = with_options(toy_block(), options), METHOD.config(options)
    samples = batches()
    if weighted:
        samples = [replace(batch, weights=torch.arange(batch.hidden_states.shape[1]) % 3 / 2.0) for batch in samples]
    parts = [METHOD.calibrate(block, part, config) for part in (samples[2:], samples[:2])]
    merged, whole = values_of(merge(*parts)), values_of(METHOD.calibrate(block, samples, config))
    assert merged.keys() == whole.keys()
    for name, own in whole.items():
        assert own
        assert own.keys() == merged[name].keys()
        assert all(torch.equal(tensor, merged[name][key]) for key, tensor in own.items() if key != "hessian")
        torch.testing.assert_close(merged[name]["hessian"], own["hessian"], rtol=1e-5, atol=1e-2)


class Nothing:
    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Batch]:
        return iter(())


@pytest.mark.parametrize("options", [{}, {"kv_cache": True, "activation_scheme": "dynamic"}, {"observer": "mse"}])
def test_an_observer_that_saw_no_data_names_the_layer(options: dict[str, object]) -> None:
    with pytest.raises(RunError, match=r"model\.layers\.0\.self_attn\.[qk]_proj: no calibration data reached it"):
        stats_of(options, samples=Nothing())


def test_a_layer_that_the_block_never_ran_names_itself() -> None:
    block = toy_block()
    idle = replace(block, layers={**block.layers, "model.layers.0.idle": nn.Linear(16, 16)})
    idle = replace(idle, groups=(*block.groups, ("model.layers.0.idle",)))
    with pytest.raises(RunError, match=r"model\.layers\.0\.idle: no calibration data reached it"):
        stats_of({}, idle)


def test_a_cache_that_is_not_finite_names_the_layer() -> None:
    block = toy_block()
    with torch.no_grad():
        block.layers["model.layers.0.self_attn.v_proj"].weight[0, 0] = float("inf")
    block = replace(block, groups=block.groups[:1], layers={name: block.layers[name] for name in block.groups[0]})
    with pytest.raises(RunError, match=r"self_attn\.v_proj: its cached output is NaN or infinite"):
        stats_of({"kv_cache": True}, block)
