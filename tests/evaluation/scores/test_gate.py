"""The gate's bounds: how they are written, what they compare, and what they say."""

from __future__ import annotations

from typing import Any

import pytest

from hyocr_core.contract.config import parse_config
from hyocr_core.errors import BadInputError, ConfigError
from hyocr_core.evaluation.scores.chosen_metrics import needs_transcripts
from hyocr_core.evaluation.scores.error_rates import BUILT_IN
from hyocr_core.evaluation.scores.gate import failures, judge
from hyocr_core.evaluation.scores.result import Comparison, EvalResult, ModelScore, PageResult
from hyocr_core.settings.eval_config import EvalConfig
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.settings.shared import OWN_BOUNDS, Gate, bound_meanings
from tests.decoding import decoding

RUN = {"model": "m", "output": "o", "method": "gptq"}


def score(**values: Any) -> ModelScore:
    empty = dict.fromkeys(
        ("cer_interval", "page_cer", "page_cer_interval", "wer_interval", "page_wer", "page_wer_interval")
    )
    more = dict.fromkeys(("revision", "edit_distance", "exact_match", "length_ratio", "first_token_seconds"))
    numbers = {"loop_rate": 0.0, "tokens": 1, "seconds": 1.0, "pages_per_second": 1.0, "tokens_per_second": 1.0}
    data = {"model": "m", "runtime": "dequant", "weight_bytes": 1, "part_bytes": {}, "cer": 0.02, "wer": 0.1}
    return ModelScore.model_validate({**data, "cut_pages": 0, **empty, **more, **numbers, **values})


def page(loop: bool, baseline_loop: bool) -> PageResult:
    return PageResult(name="p", text="", loop=loop, baseline_loop=baseline_loop)


def result(loops: tuple[int, int] = (0, 0), **changes: Any) -> EvalResult:
    """An evaluation of 10 pages: CER 2.57 % against 2 %, WER 11 % against 10 %, and so on."""
    comparison = Comparison(
        cer_difference=0.0057,
        cer_difference_interval=None,
        identical_pages=7,
        length_ratio=None,
        tokens=100,
        agreement=0.97,
        kl=0.03,
    )
    data = {
        **dict.fromkeys(("reference_characters", "reference_words")),
        **{"hyocr": "0", "data": "d", "seed": 0, "decoding": decoding(), "peak_rss_bytes": 0},
        **{"environment": {}, "failures": {}, "comparison": comparison},
        "model": score(cer=0.0257, wer=0.11, cut_pages=3, loop_rate=loops[0] / 10, edit_distance=0.3, exact_match=0.4),
        "baseline": score(cut_pages=1, loop_rate=loops[1] / 10, edit_distance=0.1, exact_match=0.5),
        "pages": tuple(page(index < loops[0], index < loops[1]) for index in range(10)),
    }
    return EvalResult.model_validate(data | changes)


@pytest.mark.parametrize(
    ("bounds", "figure", "failure"),
    [
        ({"cer": 0.57}, 0.57, ""),
        ({"cer": 0.56}, 0.57, "cer 0.57 > 0.56 points"),
        ({"wer": 1.0}, 1.0, ""),
        ({"wer": 0.999}, 1.0, "wer 1 > 0.999 points"),
        ({"agreement": 0.97}, 0.97, ""),
        ({"agreement": 0.98}, 0.97, "agreement 0.97 < 0.98 of next tokens"),
        ({"kl": 0.03}, 0.03, ""),
        ({"kl": 0.02}, 0.03, "kl 0.03 > 0.02 nats per token"),
        ({"loops": 2}, 2, ""),
        ({"loops": 1}, 2, "loops 2 > 1 pages"),
        ({"cut": 2}, 2, ""),
        ({"cut": 1}, 2, "cut 2 > 1 pages"),
        ({"identical": 0.7}, 0.7, ""),
        ({"identical": 0.8}, 0.7, "identical 0.7 < 0.8 of pages"),
        ({"edit-distance": 0.2}, 0.2, ""),
        ({"edit-distance": 0.1}, 0.2, "edit-distance 0.2 > 0.1"),
        ({"exact": 10}, 10, ""),
        ({"exact": 9}, 10, "exact 10 > 9 points"),
        ({"hyocr-core:cer": 0.5}, 0.57, "hyocr-core:cer 0.57 > 0.5 points"),
    ],
)
def test_a_bound_holds_up_to_its_value(bounds: dict[str, float], figure: float, failure: str) -> None:
    record = judge(Gate.model_validate(bounds), result(loops=(3, 1)))
    assert [(each.metric, each.bound, each.value) for each in record.figures] == [(*next(iter(bounds.items())), figure)]
    assert (record.accepted, failures(record)) == (not failure, failure)


def test_every_metric_of_a_gate_has_a_figure() -> None:
    bounds = [name for name, _ in bound_meanings("hyocr-core")]
    known = dict.fromkeys((name for name in bounds if name in BUILT_IN or name in OWN_BOUNDS), 0)
    assert known.keys() == BUILT_IN.keys() | OWN_BOUNDS.keys()
    assert [each.metric for each in judge(Gate.model_validate(known), result()).figures] == list(known)


def test_a_better_checkpoint_passes() -> None:
    better = result(model=score(cer=0.01, wer=0.05), baseline=score(cut_pages=2, loop_rate=0.2))
    assert judge(Gate(cer=0, wer=0, loops=0, cut=0), better).accepted


def test_every_failing_figure_is_named() -> None:
    record = judge(Gate(cer=0.5, agreement=0.98, kl=1, loops=0), result(loops=(1, 0)))
    assert failures(record) == "cer 0.57 > 0.5 points, agreement 0.97 < 0.98 of next tokens, loops 1 > 0 pages"


def test_a_figure_just_beside_its_bound_does_not_look_equal_to_it() -> None:
    record = judge(Gate(cer=0.5), result(model=score(cer=0.02500001)))
    assert failures(record) == "cer 0.500001 > 0.5 points"


@pytest.mark.parametrize(
    ("gate", "changes", "message"),
    [
        (Gate(loops=0), {"baseline": None, "comparison": None}, "a gate needs a baseline"),
        (Gate(cer=0), {"model": score(cer=None)}, "pages without transcripts give no cer"),
        (Gate.model_validate({"teds": 0}), {}, "pages whose transcripts have no such part give no teds"),
        (
            Gate(kl=0),
            {
                "model": score(runtime="endpoint"),
                "comparison": result().comparison.model_copy(update={"kl": None}),  # type: ignore[union-attr]
            },
            "the runtime endpoint gives no kl",
        ),
    ],
)
def test_what_was_not_measured_cannot_be_judged(gate: Gate, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        judge(gate, result(**changes))


def needs(gate: Gate | None = None, **settings: Any) -> bool:
    return needs_transcripts(EvalConfig(model="m", data="d", baseline="b", gate=gate, **settings))


def test_transcripts_are_needed_for_error_rates_alone() -> None:
    assert needs(Gate(cer=1))
    assert needs(Gate(wer=1, loops=0))
    assert needs(metrics={"exact": {}})
    assert not needs(Gate(agreement=0.9, kl=1, loops=0, cut=0, identical=0.5))
    assert not needs(metrics={"loops": {}})


def test_text_and_mapping_say_the_same() -> None:
    expected = Gate(cer=0.5, agreement=0.98, loops=0)
    for gate in (" cer=0.5, agreement = .98,loops=0", {"cer": 0.5, "agreement": 0.98, "loops": 0, "kl": None}):
        assert parse_config(RunConfig, {**RUN, "eval": "pages", "gate": gate}, "run").gate == expected
        assert EvalConfig(model="m", data="d", baseline="b", gate=gate).gate == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cre=0.5", "cre: unknown key; did you mean cer?"),
        (
            "speed=1",
            "speed: unknown key; valid keys: cer, edit-distance, exact, field-f1, formula, formula-exact, loops, "
            "olmocr-tests, outline-f1, reading-order, spotting-f1, teds, teds-structure, text-blocks, valid-json, wer, "
            "agreement, kl, cut, identical",
        ),
        ("other:cer=1", "no distribution 'other' offers the metric cer; hyocr-core"),
        ("cer=x", "cer = 'x': should be a valid number"),
        ("cer=nan", "cer = 'nan': should be a finite number"),
        ("cer=-0.1", "cer = '-0.1': should be greater than or equal to 0"),
        ("agreement=98", "agreement = '98': should be less than or equal to 1"),
        ("loops=0.5", "loops = '0.5': should be a valid integer"),
        ("cer", "'cer': write METRIC=BOUND"),
        ("cer=1,", "'': write METRIC=BOUND"),
        ("cer=1,cer=2", "cer is there twice"),
    ],
)
def test_a_bad_bound_is_one_line(text: str, message: str) -> None:
    for config, given in (
        (RunConfig, {**RUN, "eval": "p"}),
        (EvalConfig, {"model": "m", "data": "d", "baseline": "b"}),
    ):
        with pytest.raises(ConfigError) as caught:
            parse_config(config, {**given, "gate": text}, "run")
        assert str(caught.value).startswith("run: gate")
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"gate": {}, "eval": "pages"}, "gate: asks nothing; give bounds, such as cer=0.5"),
        ({"gate": {"cre": 1}, "eval": "pages"}, "gate: cre: unknown key; did you mean cer?"),
        ({"gate": "cer=1"}, "gate needs eval"),
        ({"eval_samples": 3}, "eval_samples needs eval"),
        ({"repetition_penalty": 1.1}, "repetition_penalty needs something to write: eval, or answers: generate"),
        ({"max_new_tokens": 9}, "max_new_tokens needs something to write"),
        ({"keep_loops": True}, "keep_loops needs something to write"),
        ({"eval": "e", "repetition_penalty": 0.9}, "repetition_penalty = 0.9: should be greater than or equal to 1"),
        ({"metrics": "cer"}, "metrics needs eval"),
        ({"keep": True}, "keep needs a gate"),
        ({"keep": True, "eval": "pages"}, "keep needs a gate"),
        ({"eval": "pages", "eval_samples": 0}, "eval_samples = 0"),
    ],
)
def test_a_gate_without_what_it_needs_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(RunConfig, {**RUN, **more}, "run")
    assert message in str(caught.value)
