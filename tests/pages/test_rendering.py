"""The process that renders templates: when it is started, and what becomes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hyocr_core.errors import RunError
from hyocr_core.pages import rendering
from hyocr_core.pages.rendering import RefusedError, Renderer, UnboundedError

MESSAGES = [{"role": "user", "content": "ab\ncd \u65e5 \ud800"}]
LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    made = Renderer()
    yield made
    made.close()


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def test_one_process_renders_everything(renderer: Renderer) -> None:
    before = children()
    renderer.start()
    for number in range(3):
        text = renderer.render(
            "{{ messages[0].content }}{{ bos }}{{ add_generation_prompt }}", MESSAGES, {"bos": number}
        )
        assert text == f"{MESSAGES[0]['content']}{number}False"
    assert len(children() - before) == 1
    renderer.close()
    assert children() == before


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('no images') }}", "no images"),
        ("{% for %}", "Expected an expression"),
        ("{{ strftime_now('%s' * 600) }}{{ raise_exception('x' * 99999) }}", "x" * 2000),
    ],
)
def test_a_template_that_refuses_does_not_end_it(template: str, words: str, renderer: Renderer) -> None:
    with pytest.raises(RefusedError) as caught:
        renderer.render(template, MESSAGES, {})
    assert str(caught.value).startswith(words)
    assert len(str(caught.value)) <= 2000
    assert renderer.render("{{ 1 + 1 }}", MESSAGES, {}) == "2"


def test_time_ends_it(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "SECONDS", 0.3)
    with pytest.raises(UnboundedError, match=r"^is not done with one page after 0\.3 s; it may loop$"):
        renderer.render(LOOPS, MESSAGES, {})
    assert renderer.render("{{ 1 + 1 }}", MESSAGES, {}) == "2"


def test_time_ends_it_where_the_signal_is_ignored_and_blocked(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "SECONDS", 0.3)
    before = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    try:
        with pytest.raises(UnboundedError, match="is not done with one page"):
            renderer.render(LOOPS, MESSAGES, {})
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGALRM, before)


def test_an_end_that_nobody_asked_for_is_said(renderer: Renderer) -> None:
    renderer.render("", MESSAGES, {})
    assert renderer._process is not None
    renderer._process.kill()
    with pytest.raises(UnboundedError, match=r"^ends the process that renders it \(SIGKILL\)$"):
        renderer.render("", MESSAGES, {})
    assert renderer.render("{{ 1 + 1 }}", MESSAGES, {}) == "2"


def test_without_a_process_there_is_one_line(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(RunError, match=r"^cannot start the process that renders chat templates: No such file"):
        renderer.start()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RunError, match=r"^the process that renders chat templates ended with 1: "):
        renderer.render("", MESSAGES, {})


def test_what_nobody_waited_for_is_no_answer_to_the_next_page(
    renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(process: Any, asked: bytes) -> bytes:
        process.stdin.write(asked)
        process.stdin.flush()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rendering, "_ask", interrupted)
        with pytest.raises(KeyboardInterrupt):
            renderer.render("first", MESSAGES, {})
    assert renderer.render("second", MESSAGES, {}) == "second"


def test_it_ends_with_the_process_that_started_it_even_in_a_loop(tmp_path: Path) -> None:
    """The system keeps its time, so that nothing has to be left to end it."""
    program = (
        "import os, sys, threading, time, psutil\n"
        "from hyocr_core.pages import rendering\n"
        "rendering.SECONDS = 3.0\n"
        f"ask = lambda: rendering.RENDERER.render({LOOPS!r}, [], {{}})\n"
        "rendering.RENDERER.render('', [], {})\n"
        "threading.Thread(target=ask, daemon=True).start()\n"
        "time.sleep(0.5)\n"
        "print(psutil.Process().children()[0].pid, flush=True)\n"
        f"os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=os.environ)
    assert done.stdout, done.stderr
    pid, until = int(done.stdout), time.monotonic() + 60
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.1)
