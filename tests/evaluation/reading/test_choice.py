"""Which runtime reads is chosen from what the user wrote, and numbers of different runtimes are not mixed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from hyocr_core.errors import BackendError, BadInputError, ConfigError
from hyocr_core.evaluation.reading.choice import check_runtimes, checked_url, choose_backends
from hyocr_core.evaluation.reading.parallel import as_done
from hyocr_core.evaluation.scores.result import Runtime
from hyocr_core.settings.eval_config import EvalConfig

URLS = ["http://127.0.0.1:8000/v1", "https://ocr.example.org/openai/v1", "http://[::1]:80/v1"]


def config(backend: str, **settings: object) -> EvalConfig:
    return EvalConfig.model_validate({"model": "m", "data": "d", "backend": backend, **settings})


@pytest.mark.parametrize("url", URLS)
def test_urls(url: str) -> None:
    assert checked_url(f"{url}/") == checked_url(url) == url
    chosen = choose_backends(config(url, timeout=5))["model"]
    assert (chosen.name, chosen.config.model_dump()) == ("endpoint", {"url": url, "timeout": 5})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cuda", "unknown backend 'cuda'; give auto, dequant, endpoint, llama.cpp, transformers, vllm, or the URL"),
        ("VLLM", "unknown backend 'VLLM'"),
        ("127.0.0.1:8000/v1", "unknown backend"),
        ("ftp://host/v1", "is no URL such as http://127.0.0.1:8000/v1"),
        ("http:///v1", "is no URL such as"),
        ("http://host:99999/v1", "is no URL such as"),
        ("http://[::1/v1", "is no URL such as"),
        ("http://user:hunter2@host/v1", "HYOCR_API_KEY"),
        ("http://host/v1?key=hunter2", "HYOCR_API_KEY"),
        ("ftp://user:hunter2@host/v1?key=hunter2", "is no URL such as"),
    ],
)
def test_what_is_no_backend(text: str, message: str) -> None:
    for given in (config(text), config("auto", baseline="b", baseline_backend=text)):
        with pytest.raises(BadInputError) as caught:
            choose_backends(given)
        assert message in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_options_go_to_the_backend_that_they_name() -> None:
    given = config("vllm", python="/a/python", baseline="b", baseline_backend="transformers")
    chosen = choose_backends(given)
    assert [str(each.config) for each in chosen.values()] == ["python=PosixPath('/a/python')", ""]
    own = config("endpoint", timeout=9, backend_options={"endpoint": {"url": "http://h/v1", "timeout": 3}})
    assert choose_backends(own)["model"].config.model_dump() == {"url": "http://h/v1", "timeout": 3}


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"backend_options": {"vllm": {"speed": 3}}}, ConfigError, "backend vllm (hyocr-core "),
        ({"backend_options": {"vllm": {"speed": 3}}}, ConfigError, "options: speed: unknown key"),
        ({"backend_options": {"toy": {}}}, BadInputError, "backend_options: toy is not what reads: vllm"),
        ({"backend": "endpoint"}, ConfigError, "options: url: is missing"),
        ({"backend": "other:vllm"}, BackendError, "no distribution 'other' offers the backend vllm; hyocr-core"),
    ],
)
def test_wrong_options_are_one_line(settings: dict[str, object], error: type[BadInputError], message: str) -> None:
    with pytest.raises(error) as caught:
        choose_backends(config(**{"backend": "vllm", **settings}))  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "of_plain", "of_quantized"),
    [
        ("auto", "transformers", "dequant"),
        ("dequant", "transformers", "dequant"),
        ("transformers", "transformers", "transformers"),
        ("vllm", "vllm", "vllm"),
        ("http://host/v1", "endpoint", "endpoint"),
    ],
)
def test_what_reads(name: str, of_plain: str, of_quantized: str) -> None:
    chosen = choose_backends(config(name))["model"]
    assert (chosen.runtime(quantized=False), chosen.runtime(quantized=True)) == (of_plain, of_quantized)
    assert chosen.only_text == (name not in ("auto", "dequant", "transformers"))


PLAIN, DEQUANT, NATIVE = ("transformers", False), ("dequant", True), ("transformers", True)
VLLM, ENDPOINT = ("vllm", True), ("endpoint", True)
Side = tuple[Runtime, bool]


@pytest.mark.parametrize(
    ("model", "baseline"),
    [(DEQUANT, PLAIN), (PLAIN, DEQUANT), (NATIVE, PLAIN), (DEQUANT, DEQUANT), (VLLM, VLLM), (ENDPOINT, ENDPOINT)],
)
def test_the_same_arithmetic_may_be_compared(model: Side, baseline: Side) -> None:
    check_runtimes(model, baseline, cross_runtime=False)


@pytest.mark.parametrize(
    ("model", "baseline"),
    [(VLLM, PLAIN), (DEQUANT, VLLM), (VLLM, ENDPOINT), (ENDPOINT, PLAIN), (NATIVE, DEQUANT), (DEQUANT, NATIVE)],
)
def test_different_runtimes_are_compared_only_when_asked(model: Side, baseline: Side) -> None:
    with pytest.raises(BadInputError, match=f"model is read by {model[0]} and the baseline by {baseline[0]}") as caught:
        check_runtimes(model, baseline, cross_runtime=False)
    assert "--cross-runtime" in str(caught.value)
    check_runtimes(model, baseline, cross_runtime=True)


def test_jobs_are_taken_when_there_is_room() -> None:
    taken: list[int] = []

    def jobs() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    results = as_done(lambda number: number * number, jobs(), 3)
    assert taken == []
    first = next(results)
    assert taken == [0, 1, 2]
    assert sorted([first, *results]) == [number * number for number in range(10)]


def test_what_is_done_first_comes_first() -> None:
    second = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert second.wait(20)
        return number

    results = as_done(work, range(2), 2)
    assert next(results) == 1
    second.set()
    assert list(results) == [0]


def test_what_the_work_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(as_done(lambda number: 1 // number, [1, 0, 1], 1))


def test_an_abandoned_caller_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    results = as_done(lambda number: number, range(10), 4)
    next(results)
    own = set(threading.enumerate()) - before
    assert own
    results.close()
    for thread in own:
        thread.join(20)
    assert not any(thread.is_alive() for thread in own)
