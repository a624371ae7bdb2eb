"""llama.cpp's own server out of the package xllamacpp, where no `llama-server` is installed. Imports nothing of hyocr.

    python llama_runner.py --model FILE --mmproj FILE --port N ...

It takes those options of `llama-server` that hyocr gives, answers the same requests, and is stopped as that is. Of what
llama.cpp has to say only faults go to stderr.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from signal import pause

from xllamacpp import CommonParams, Server

_FAULTS = 1


def main(arguments: list[str]) -> None:
    """Serve until the process is ended. Exits with llama.cpp's reason on stderr where it does not load the files."""
    try:
        server = Server(_parameters(_parsed(arguments)))  # it serves as long as it is kept
    except RuntimeError as error:
        sys.exit(str(error))
    while server:
        pause()


def _parsed(arguments: list[str]) -> Namespace:
    parser = ArgumentParser()
    parser.add_argument("--jinja", action="store_true")
    for name in ("--model", "--mmproj", "--host"):
        parser.add_argument(name, required=True)
    for name in ("--port", "--parallel", "--ctx-size", "--threads"):
        parser.add_argument(name, required=True, type=int)
    return parser.parse_args(arguments)


def _parameters(given: Namespace) -> CommonParams:
    told = CommonParams()
    told.model.path, told.mmproj.path = given.model, given.mmproj
    told.hostnames, told.port = [given.host], given.port
    told.n_parallel, told.n_ctx = given.parallel, given.ctx_size
    told.cpuparams.n_threads = told.cpuparams_batch.n_threads = given.threads
    told.use_jinja = given.jinja
    told.verbosity, told.ui = _FAULTS, False
    return told


if __name__ == "__main__":
    main(sys.argv[1:])
