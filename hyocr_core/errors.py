"""Every error that hyocr shows to its user as one line; anything else is a bug and keeps its traceback."""

from __future__ import annotations

from hyocr_core.shown import message


class HyocrError(Exception):
    """Base of all errors meant for the user, as one line of bounded length. `exit_code` is what the command returns."""

    exit_code = 1

    def __str__(self) -> str:
        return message(super().__str__())


class BadInputError(HyocrError, ValueError):
    """Something the user gave cannot be used; raised before any long work."""

    exit_code = 2


class ConfigError(BadInputError):
    """A run or method configuration is wrong; the message names the key and the fix."""


class MethodError(BadInputError):
    """A quantization method is unknown, offered twice, or its plugin does not keep the contract."""


class ObserverError(BadInputError):
    """An observer is unknown, offered twice, cannot start, or does not keep the contract."""


class FormatError(BadInputError):
    """A checkpoint format is offered twice, cannot be imported, or does not keep the contract."""


class MetricError(BadInputError):
    """A metric is unknown, offered twice, does not keep the contract, or gives no number for a page."""


class BackendError(BadInputError):
    """A backend is unknown, offered twice, cannot start, or does not keep the contract."""


class CheckpointError(BadInputError):
    """A checkpoint folder cannot be read; the message names the file or tensor."""


class CalibrationError(BadInputError):
    """A calibration or evaluation source cannot be used; the message names the row or file."""


class MissingRuntimeError(BadInputError):
    """A runtime cannot be tried here: it, or a package it needs, is not installed; the message says which."""


class OutputError(BadInputError):
    """The output folder cannot be used: not empty, too little disk, or a run that cannot be resumed."""


class RunError(HyocrError):
    """The run itself failed; the message names the layer."""


class HookError(RunError):
    """A plugin's hook raised or broke its promise; the message names method, distribution, hook and layer."""


def one_line(error: BaseException, limit: int = 200, *, named: bool = False) -> str:
    """The message of an error as one line of at most `limit` characters; its class where there is no message.

    named: with the class in front, for errors of code that is not ours.
    """
    text, name = message(" ".join(str(error).split()), limit), type(error).__name__
    return f"{name}: {text}" if named and text else text or name
