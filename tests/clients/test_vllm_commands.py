"""vLLM takes the options of every `vllm serve` in the README and the documentation."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.clients.conftest import VLLM_PYTHON
from tests.docs.pages import commands
from tests.docs.test_commands import PAGES

PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser())
for arguments in json.loads(sys.argv[1]):
    parser.parse_args(arguments)
try:
    parser.parse_args(["--no-such-option"])
except SystemExit as refused:
    print("refused", refused.code)
"""


def test_vllm_takes_the_options() -> None:
    if not VLLM_PYTHON.is_file():
        pytest.skip("no .venv-vllm: `make clients` makes it")
    serve = [command[2:] for page in PAGES for command in commands(page) if command[:2] == ["vllm", "serve"]]
    assert len(serve) >= 3
    done = subprocess.run([VLLM_PYTHON, "-c", PARSE, json.dumps(serve)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "refused 2" in done.stdout
