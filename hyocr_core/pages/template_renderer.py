"""The process that renders chat templates for `rendering`: a program of its own, never imported by hyocr.

A template may loop for years or ask for all memory, and nothing but the end of a process gets rid of that. This one
takes a JSON object a line on stdin, `seconds` and the `arguments` of Transformers' own function, and answers each with
one on stdout: `text`, or an `error` in the template's own words, or `memory` if it wanted more than it may have. When
the seconds are over, the system ends it. Its argument: the bytes that rendering may take beyond what is taken before.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOST_TEXT = 1 << 24
"""Characters of a conversation."""
MOST_ERROR = 2000
"""Characters of an error."""


def main() -> None:
    # The terminal's Ctrl-C is for the process that asked, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # An ignored or blocked signal is inherited.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    # Nothing else may write among the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    from transformers.utils.chat_template_utils import render_jinja_template

    _limit_memory(int(sys.argv[1]))
    for line in sys.stdin.buffer:
        answers.write(_answer(json.loads(line), render_jinja_template) + "\n")
        answers.flush()


def _limit_memory(more: int) -> None:
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return  # macOS keeps no such limit; that of time holds there, too
    taken = int(statm.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = taken + more if hard == resource.RLIM_INFINITY else min(taken + more, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _answer(asked: dict[str, Any], render: Callable[..., Any]) -> str:
    signal.setitimer(signal.ITIMER_REAL, asked["seconds"])
    try:
        text = render(**asked["arguments"])[0][0]
        if len(text) > MOST_TEXT:
            return json.dumps({"error": f"it writes more than {MOST_TEXT:,} characters"})
        return json.dumps({"text": text})
    except MemoryError:
        return json.dumps({"memory": True})
    except Exception as error:  # whatever a program may raise: a template's own refusal, a TypeError, recursion
        return json.dumps({"error": str(error)[:MOST_ERROR] or type(error).__name__})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
