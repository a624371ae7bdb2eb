from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import HunYuanVLForConditionalGeneration

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import BadInputError, CalibrationError, CheckpointError, RunError
from hyocr_core.evaluation.reading.generate import Runner
from hyocr_core.evaluation.scores.rates import bootstrap_interval
from hyocr_core.evaluation.scores.result import EvalResult
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.load import Weights, load_whole
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.samples import build_sample
from hyocr_core.progress import Silent
from hyocr_core.run.quantize import quantize
from hyocr_core.runtimes.forward import set_forward
from hyocr_core.settings.run_config import RunConfig
from tests.evaluating import evaluate

pytestmark = pytest.mark.needs_methods

MakePages = Callable[..., list[Record]]


def broken(record: Record) -> Record:
    def refuse() -> Any:
        raise CalibrationError("is no image")

    return dataclasses.replace(record, open_image=refuse)


@torch.no_grad()
def by_hand(folder: Path, baseline: Path, records: list[Record]) -> dict[str, Any]:
    """The comparison with Transformers and Python's floats, one page and one token at a time."""
    loaded: list[Any] = [HunYuanVLForConditionalGeneration.from_pretrained(path) for path in (folder, baseline)]
    model, other = (each.eval() for each in loaded)
    for each in loaded:
        set_forward(each, "reference")
    processor = load_processor(baseline)
    # Multiples of 6 end an answer of the tiny models, and the tokenizer's own end does.
    ends = [*model.generation_config.eos_token_id, processor.tokenizer.eos_token_id]
    texts: list[tuple[str, str]] = []
    kls: list[list[float]] = []
    agreeing = cut = 0
    for record in records:
        inputs = build_sample(record, processor, with_answer=False).inputs
        ids = inputs["input_ids"]
        whole = [
            each.generate(**inputs, attention_mask=torch.ones_like(ids), eos_token_id=ends) for each in (model, other)
        ]
        decoded = [processor.tokenizer.decode(one[0, ids.shape[1] :], skip_special_tokens=True) for one in whole]
        texts.append((decoded[0], decoded[1]))
        cut += int(whole[0][0, -1]) not in ends
        kls.append([])
        for end in range(ids.shape[1], whole[1].shape[1]):
            kinds = torch.zeros(1, end, dtype=torch.long)
            kinds[:, : ids.shape[1]] = inputs["mm_token_type_ids"]
            prefix = inputs | {"input_ids": whole[1][:, :end], "mm_token_type_ids": kinds}
            q, p = (each(**prefix).logits[0, -1].double().softmax(0).tolist() for each in (model, other))
            kls[-1].append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
            agreeing += p.index(max(p)) == q.index(max(q))
    return {"texts": texts, "kls": kls, "agreeing": agreeing, "cut": cut}


def test_comparison_is_what_it_is_by_hand(tiny: Path, noisy: Path, pages: MakePages) -> None:
    records = pages(5)
    expected = by_hand(noisy, tiny, records)
    result = evaluate(noisy, records, baseline=tiny)
    assert result.comparison is not None
    assert result.baseline is not None
    assert [(page.text, page.baseline_text) for page in result.pages] == [
        (mine.rstrip(), other.rstrip()) for mine, other in expected["texts"]
    ]
    tokens = sum(map(len, expected["kls"]))
    assert 0 < expected["agreeing"] < tokens, "the noise must change some of the tokens and not all"
    assert result.comparison.tokens == result.baseline.tokens == tokens
    assert result.comparison.agreement == pytest.approx(expected["agreeing"] / tokens)
    assert result.comparison.kl == pytest.approx(sum(map(sum, expected["kls"])) / tokens, rel=1e-3)
    assert [page.compared_tokens for page in result.pages] == [len(kls) for kls in expected["kls"]]
    means = [sum(kls) / len(kls) for kls in expected["kls"]]
    assert [page.kl for page in result.pages] == pytest.approx(means, rel=1e-3)
    assert result.model.cut_pages == expected["cut"]
    assert result.comparison.identical_pages == sum(
        mine.rstrip() == other.rstrip() for mine, other in expected["texts"]
    )


def test_scores_add_up(tiny: Path, noisy: Path, pages: MakePages, slow_distance: Callable[[str, str], int]) -> None:
    records = pages(6, "abc d\u00e9f ")
    result = evaluate(noisy, records, baseline=tiny, seed=3)
    assert result.baseline is not None
    assert result.comparison is not None
    errors = [slow_distance("abc d\u00e9f", page.text) for page in result.pages]
    assert [page.errors for page in result.pages] == errors
    assert result.reference_characters == 6 * 7
    assert result.model.cer is not None
    assert result.model.cer == pytest.approx(sum(errors) / 42)
    assert result.baseline.cer is not None
    assert result.comparison.cer_difference is not None
    assert result.comparison.cer_difference == pytest.approx(result.model.cer - result.baseline.cer)
    for rate, interval in (
        (result.model.cer, result.model.cer_interval),
        (result.baseline.cer, result.baseline.cer_interval),
        (result.comparison.cer_difference, result.comparison.cer_difference_interval),
    ):
        assert interval is not None
        assert interval[0] <= rate <= interval[1]
    assert result.model.cer_interval == bootstrap_interval(errors, [7] * 6, seed=3)
    assert result.model.weight_bytes == (noisy / "model.safetensors").stat().st_size
    assert result.model.model == str(noisy)


def test_pages_read_right_count_as_exact(tiny: Path, pages: MakePages) -> None:
    records = pages(4)
    texts = [page.text for page in evaluate(tiny, records).pages]
    right = [dataclasses.replace(record, answer=text + "\n") for record, text in zip(records, texts, strict=True)]
    right[1] = dataclasses.replace(right[1], answer=texts[1] + "x")
    result = evaluate(tiny, right)
    assert result.model.exact_match == 0.75
    assert [page.errors for page in result.pages] == [0, 1, 0, 0]
    assert result.baseline is None
    assert result.comparison is None


def test_a_model_is_identical_to_itself(demo: Path, pages: MakePages) -> None:
    result = evaluate(demo, pages(7), baseline=demo, max_new_tokens=8)
    assert result.comparison is not None
    assert result.comparison.agreement == 1
    assert result.comparison.kl == pytest.approx(0, abs=1e-6)
    assert result.comparison.identical_pages == 7
    assert result.comparison.cer_difference == 0
    # Of seven pages a third may be otherwise where none is: as wrong as those that are.
    wrong = [page.cer for page in result.pages if page.cer]
    otherwise = 0.348 * sum(min(rate, 1) for rate in wrong) / len(wrong)
    assert result.comparison.cer_difference_interval == pytest.approx((-otherwise, otherwise), abs=1e-3)
    assert result.comparison.agreement_interval == pytest.approx((0.652, 1), abs=1e-3)
    assert result.verdict is not None
    assert "100 %" not in result.verdict.text
    assert "0.00 to 0.00" not in result.verdict.text


TIMES = ("seconds", "pages_per_second", "tokens_per_second", "first_token_seconds")


def without_seconds(result: EvalResult) -> dict[str, Any]:
    data: dict[str, Any] = result.model_dump(mode="json")
    del data["peak_rss_bytes"]
    for side in ("model", "baseline"):
        for name in TIMES:
            del data[side][name]
    return data


def test_same_input_gives_the_same_result(tiny: Path, noisy: Path, pages: MakePages) -> None:
    first, second = (evaluate(noisy, pages(5), baseline=tiny) for _ in range(2))
    assert json.dumps(without_seconds(first)) == json.dumps(without_seconds(second))


def test_batches_and_what_is_kept_change_no_text(
    tiny: Path, noisy: Path, pages: MakePages, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = evaluate(noisy, pages(7), baseline=tiny)
    monkeypatch.setattr("hyocr_core.pages.checked.KEPT_PATCHES", 40)
    result = evaluate(noisy, pages(7), baseline=tiny, batch_size=2)
    assert [(page.name, page.text, page.agreeing_tokens) for page in result.pages] == [
        (page.name, page.text, page.agreeing_tokens) for page in expected.pages
    ]


def test_a_tenth_of_the_pages_may_fail(tiny: Path, pages: MakePages) -> None:
    records = pages(10)
    records[4] = broken(records[4])
    result = evaluate(tiny, records)
    assert result.failures == {"page-4": "is no image"}
    assert [page.name for page in result.pages] == [record.name for record in records if record.name != "page-4"]


def test_more_failures_stop_before_any_weight_is_read(
    tiny: Path, pages: MakePages, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = pages(10)
    records[4], records[7] = broken(records[4]), broken(records[7])
    monkeypatch.setattr("hyocr_core.evaluation.reading.local.load_whole", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(CalibrationError, match=r"2 of 10.*page-4: is no image; page-7") as caught:
        evaluate(tiny, records)
    assert caught.value.exit_code == 2


def test_transcripts_are_needed_without_a_baseline(tiny: Path, pages: MakePages) -> None:
    with pytest.raises(CalibrationError, match="page-0: no transcript"):
        evaluate(tiny, pages(3, None))


def test_error_rates_are_of_the_pages_with_a_transcript_and_the_rest_of_all(
    tiny: Path, noisy: Path, pages: MakePages
) -> None:
    records = pages(5)
    some = [dataclasses.replace(page, answer=None) if place in (1, 3) else page for place, page in enumerate(records)]
    progress = Lines()
    result = evaluate(noisy, some, baseline=tiny, progress=progress)
    known, whole = (evaluate(noisy, each, baseline=tiny) for each in (records[::2], records))
    assert (result.transcribed, len(result.pages)) == (3, 5)
    assert "3 of 5 pages have a transcript: error rates are of these, all else of all pages" in progress.said
    for field in ("cer", "wer_interval", "page_cer", "length_ratio", "exact_match"):
        assert getattr(result.model, field) == getattr(known.model, field)
    assert result.reference_characters == known.reference_characters
    assert result.comparison is not None
    assert known.comparison is not None
    assert result.comparison.cer_difference == known.comparison.cer_difference
    for field in ("kl", "agreement", "tokens", "identical_pages"):
        assert getattr(result.comparison, field) == getattr(whole.comparison, field)
    assert [page.errors is None and page.cer is None and page.reference is None for page in result.pages] == [
        place in (1, 3) for place in range(5)
    ]


class Lines(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_empty_transcripts_have_no_error_rate(tiny: Path, pages: MakePages) -> None:
    with pytest.raises(CalibrationError, match="empty"):
        evaluate(tiny, pages(3, " \n"))


def test_without_transcripts_the_comparison_remains(tiny: Path, noisy: Path, pages: MakePages) -> None:
    result = evaluate(noisy, pages(4, None), baseline=tiny)
    assert result.comparison is not None
    assert result.comparison.kl
    assert result.comparison.cer_difference is None
    assert result.model.cer is None
    assert result.reference_characters is None
    assert all(page.errors is None for page in result.pages)


def test_another_tokenizer_is_refused(tiny: Path, pages: MakePages, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["added_tokens"][-1]["content"] = "Something else"
    (other / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(CheckpointError, match="other: has another vocabulary"):
        evaluate(tiny, pages(2), baseline=other)


def test_another_vocabulary_size_is_refused(tiny: Path, pages: MakePages, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    model = HunYuanVLForConditionalGeneration.from_pretrained(tiny)
    model.resize_token_embeddings(400)
    model.save_pretrained(other)
    with pytest.raises(CheckpointError, match="other: has another vocabulary"):
        evaluate(tiny, pages(2), baseline=other)


def test_infinite_logits_along_the_answers_are_no_result(
    tiny: Path, pages: MakePages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny, other)

    def load(weights: Weights, device: torch.device, *how: Any, **options: Any) -> HunYuanVL:
        model = load_whole(weights, device, *how, **options)
        if weights.folder == other:
            model.skeleton.lm_head.register_forward_hook(
                lambda _m, _a, logits: logits.index_fill(-1, torch.tensor([5]), torch.inf)
            )
        return model

    monkeypatch.setattr("hyocr_core.evaluation.reading.local.load_whole", load)
    with pytest.raises(RunError, match="NaN or infinite"):
        evaluate(other, pages(1), baseline=tiny)


def test_rounding_to_nearest_reads_like_a_method_that_does_just_that(
    tiny: Path, by_rtn: Path, pages: MakePages
) -> None:
    result = evaluate(by_rtn, pages(5), baseline=tiny, rounded=True)
    assert result.rounded is not None
    assert result.comparison is not None
    assert result.comparison.agreement is not None
    assert result.comparison.agreement < 1
    assert result.rounded_comparison == result.comparison
    scores = [score.model_dump(exclude={"model", *TIMES}) for score in (result.model, result.rounded)]
    assert scores[0] == scores[1]
    assert result.rounded.model == str(tiny)
    assert result.rounded.runtime == "dequant"
    plain = evaluate(by_rtn, pages(5), baseline=tiny)
    assert (plain.rounded, plain.rounded_comparison) == (None, None)
    assert (plain.comparison, plain.pages, plain.blocks) == (result.comparison, result.pages, result.blocks)


def test_rounding_to_nearest_needs_a_format_and_full_precision(
    tiny: Path, by_rtn: Path, pages: MakePages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyocr_core.evaluation.reading.local.load_whole", lambda *_: pytest.fail("weights were read"))
    for model, baseline, reason in (
        (by_rtn, None, "rounded needs a baseline"),
        (tiny, tiny, "is not quantized: there is no format"),
        (by_rtn, by_rtn, "is quantized; only full-precision weights"),
    ):
        with pytest.raises((BadInputError, ValidationError), match=reason):
            evaluate(model, pages(1), baseline=baseline, rounded=True)


def test_what_sees_the_same_looks_once(
    demo: Path, tmp_path: Path, pages: MakePages, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []
    embed = Runner.embed

    def watched(self: Runner, batch: Any) -> Any:
        looks.append(self.folder)
        return embed(self, batch)

    monkeypatch.setattr(Runner, "embed", watched)
    for vision, expected in ((False, 1), (True, 3)):
        folder = tmp_path / str(vision)
        options = {"activation_scheme": "dynamic", "quant_vit": vision}
        quantize(RunConfig(model=str(demo), output=folder, method="fp8", options=options))
        looks.clear()
        evaluate(folder, pages(1), baseline=demo, rounded=True, max_new_tokens=2)
        assert len(looks) == expected


@pytest.mark.parametrize("option", ["batch_size", "max_new_tokens"])
def test_nothing_at_a_time_is_refused(tiny: Path, pages: MakePages, option: str) -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        evaluate(tiny, pages(1), **{option: 0})  # type: ignore[arg-type]
