"""A device that is not the CPU, for tests on machines without an accelerator.

    with stand_in() as device:
        quantize(run.model_copy(update={"device": device.name}))
    assert device.waits.total() < 100

Its tensors say that they lie on the device, and compute on the CPU. An operation that mixes them with tensors on the
CPU raises, as on CUDA; `waits` counts what makes the host wait for the device there. So it proves that tensors are
where they belong, and how often the host waits; of speed, and of another device's arithmetic, it says nothing. It
stands on PyTorch's Python backend, which is experimental, and stays registered in the process once it was used.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

NAME = "sim"

_aten = torch.ops.aten

READING = (
    _aten._local_scalar_dense,
    _aten.bincount,
    _aten.equal,
    _aten.is_nonzero,
    _aten.masked_select,
    _aten.nonzero,
    _aten._unique2,
)
"""Operations whose result, or the size of it, the host has to know."""

COPYING = (_aten._to_copy, _aten.copy_)

_SET_DATA = inspect.getattr_static(torch.Tensor, "data").__set__

_running: list[StandIn] = []


class StandIn(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The device while it can be used. waits: how often the host waited for it, by the operation."""

    name = NAME

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.is_inference_mode_enabled():
            # Only there operations arrive that are made of others, which are what can be followed.
            with self:
                made = func.decompose(*args, **(kwargs or {}))
            if made is not NotImplemented:
                return made
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Compute on the CPU what was asked of this device; what was asked of the CPU is none of its business."""
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        ours = [tensor for tensor in tensors if isinstance(tensor, SimTensor)]
        goal = kwargs.get("device")
        lands = bool(ours) if goal is None else torch.device(goal).type == NAME
        if func.overloadpacket in COPYING:
            lands = isinstance(args[0], SimTensor) if goal is None else lands
            self._note_copy(func, tensors, lands, kwargs)
        else:
            _refuse_mixture(func, tensors, ours)
            if ours and _is_read(func, args):
                self.waits[str(func.overloadpacket)] += 1
        if not ours and not lands:
            return func(*args, **kwargs)
        held_args, held_kwargs = tree_map_only(SimTensor, lambda tensor: tensor.held, (args, dict(kwargs)))
        if goal is not None:
            held_kwargs["device"] = torch.device("cpu")
        result = func(*held_args, **held_kwargs)
        if not lands:
            # A copy to the CPU of what lies there already would be no copy.
            return result.clone() if func.overloadpacket in COPYING and goal is not None else result
        wrapped = tree_map_only(torch.Tensor, SimTensor, result)
        correct: Any = return_and_correct_aliasing
        return correct(func, args, dict(kwargs), wrapped) if ours else wrapped

    def _note_copy(self, func: Any, tensors: list[torch.Tensor], lands: bool, kwargs: Mapping[str, Any]) -> None:
        comes = isinstance(tensors[-1], SimTensor)
        skeleton = "meta" in (tensors[-1].device.type, torch.device(kwargs.get("device") or NAME).type)
        if comes != lands and not skeleton and not kwargs.get("non_blocking"):
            self.waits[str(func.overloadpacket)] += 1


def _refuse_mixture(func: Any, tensors: list[torch.Tensor], ours: list[SimTensor]) -> None:
    strangers = [tensor for tensor in tensors if not isinstance(tensor, SimTensor) and tensor.ndim]
    if ours and strangers:
        raise RuntimeError(f"{func}: expected all tensors on one device, found {NAME}:0 and {strangers[0].device}")


def _is_read(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether the host has to wait for what an operation makes."""
    if func.overloadpacket in (_aten.index, _aten.index_put, _aten.index_put_):
        # The places of a mask have to be counted; where one value goes to all of them, they are not.
        filled = len(args) > 2 and args[2].numel() == 1
        return not filled and any(index is not None and index.dtype == torch.bool for index in args[1])
    return func.overloadpacket in READING


class SimTensor(torch.Tensor):
    """Looks like a tensor on the stand-in; `held` is its data on the CPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> SimTensor:
        # PyTorch has no wrappers that know nothing of gradients; what is held may.
        with torch.inference_mode(mode=False):
            made = torch.Tensor._make_wrapper_subclass(
                cls,
                held.size(),
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                device=torch.device(NAME, 0),
                requires_grad=held.requires_grad,
            )
        made.held = held
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"SimTensor({self.held!r})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func == _SET_DATA and isinstance(args[0], SimTensor):
            if not isinstance(args[1], SimTensor):
                raise RuntimeError(f"a tensor on {NAME} was given data on the CPU")
            args[0].held = args[1].held
        elif name == "numpy":
            raise TypeError(f"can't convert a {NAME} tensor to numpy; use .cpu() first")
        elif name == "tolist":
            _running[-1].waits[name] += 1
            return args[0].held.tolist()
        elif name in ("untyped_storage", "storage", "data_ptr"):
            return getattr(args[0].held, name)()
        elif func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            # PyTorch would make a tensor of a list where no Python backend can follow.
            args = (args[0], _indices(args[1]), *args[2:])
        elif func is torch.nn.functional.scaled_dot_product_attention:
            # It is put together otherwise on every device; here it is to be the CPU's.
            return _whole(func, args, kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        if not _running:
            raise RuntimeError(f"a tensor on {NAME} was used after the device was gone")
        return _running[-1].run(func, args, kwargs or {})


class _MadeOfNumbers(TorchFunctionMode):
    """Lets `torch.tensor` make its tensor on the CPU and move it, as it does for CUDA."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu").type == NAME:
            return func(*args, **{**kwargs, "device": "cpu"}).to(NAME)
        return func(*args, **kwargs)


def _indices(index: Any) -> Any:
    parts = index if isinstance(index, tuple) else (index,)
    moved = tuple(_numbers(part) if isinstance(part, list) else part for part in parts)
    return moved if isinstance(index, tuple) else moved[0]


def _numbers(part: list[Any]) -> torch.Tensor:
    return torch.tensor(part, dtype=None if part else torch.long).to(NAME)


def _whole(func: Any, args: Any, kwargs: Any) -> SimTensor:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    _refuse_mixture(func, tensors, [tensor for tensor in tensors if isinstance(tensor, SimTensor)])
    args, kwargs = tree_map_only(SimTensor, lambda tensor: tensor.held, (args, kwargs))
    return SimTensor(func(*args, **kwargs))


@cache
def _register() -> None:
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(NAME)


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """Let this process have the device; its tensors cannot be used afterwards."""
    _register()
    with StandIn() as device, _MadeOfNumbers():
        _running.append(device)
        try:
            yield device
        finally:
            _running.pop()
