"""Operator trace of a network with shapes, from a pass at batch 1 on tensors without values."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from edgekd.ir.operators import aten_operator
from edgekd.students.islands import kept_tensors
from edgekd.tasks._protocol import InputSpec

__all__ = ["MODEL_ERRORS", "ModuleSpan", "Operator", "Shape", "Trace", "trace"]

Shape = tuple[int, ...]

MODEL_ERRORS = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError)
"""Errors that a model's own code raises on an unexpected number of channels."""


@dataclass(frozen=True)
class Operator:
    """Operator that computes. Activations are numbered; 0 is the input."""

    name: str  # canonical, as in `edgekd.ir.operators`
    reads: tuple[int, ...]
    writes: int
    shape: Shape  # of the result
    given: tuple[tuple[str, Shape], ...]  # every tensor it is given: a parameter's name ("" of an activation) and shape
    stride: int = 1
    module: str = ""  # innermost module in whose forward it ran, if the trace records modules


@dataclass(frozen=True)
class ModuleSpan:
    """Operators of a module that ran once: from ``begin`` up to ``end``, between two activations."""

    begin: int
    end: int
    reads: int
    writes: int


@dataclass(frozen=True)
class Trace:
    """Operators in order, elements of the input, outputs, spans of some modules, and parameters' shapes."""

    operators: tuple[Operator, ...]
    source_size: int
    answers: tuple[int, ...]
    spans: Mapping[str, ModuleSpan]
    parameters: Mapping[str, Shape]  # by name; tied ones once
    constants: frozenset[str] = frozenset()  # names of those that are float16 at every precision (`islands`)

    def but(self, **changes: Any) -> Trace:
        """Return a copy with some fields replaced."""
        return replace(self, **changes)


def trace(module: nn.Module, given: InputSpec, spanned: Sequence[str] = (), located: bool = False) -> Trace:
    """Run a copy of ``module`` for one input. ``spanned``: modules whose operators are recorded as spans.

    ``located``: record each operator's module, which takes a tenth more time.
    """
    shapes = _without_values(module)
    names: dict[int, str] = {}
    parameters: dict[str, Shape] = {}
    for name, tensor in [*shapes.named_parameters(), *shapes.named_buffers()]:
        parameters.setdefault(names.setdefault(_buffer(tensor), name), tuple(tensor.shape))
    image = torch.from_numpy(given.example()).to("meta")
    recorder = _Recorder(names, image)
    if located:
        for name, part in shapes.named_modules():
            part.register_forward_pre_hook(lambda _, __, name=name: recorder.within.append(name))
            part.register_forward_hook(lambda *_: recorder.leave())
    begun: dict[str, tuple[int, int]] = {}
    spans: dict[str, ModuleSpan] = {}
    for name in spanned:
        part = shapes.get_submodule(name)
        part.register_forward_pre_hook(
            lambda _, given, name=name: begun.update({name: (len(recorder.operators), recorder.current(given[0]))})
        )
        part.register_forward_hook(
            lambda _, __, made, name=name: spans.update(
                {name: ModuleSpan(begun[name][0], len(recorder.operators), begun[name][1], recorder.current(made))}
            )
        )
    with torch.no_grad(), torch.device("meta"), recorder:
        answers = pytree.tree_leaves(shapes(image))
    return Trace(
        tuple(recorder.operators),
        image.numel(),
        tuple(recorder.current(answer) for answer in answers),
        spans,
        parameters,
        kept_tensors(module),
    )


_SHAPED: Mapping[Any, Callable[[Tensor], Any]] = {
    torch.ops.aten.relu.default: torch.empty_like,
    torch.ops.aten.native_batch_norm.default: lambda image: (torch.empty_like(image), *image.new_empty((2, 0))),
}
"""Results without values, of operators whose shapes torch itself infers slowly."""


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Records every operator that computes.

    Activations are numbered: views keep their number, in-place results don't.
    """

    def __init__(self, parameters: Mapping[int, str], image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.operators: list[Operator] = []
        self.within = [""]  # modules whose forward runs, the innermost last
        self._alive: list[Tensor] = [image]  # keeps storages, so that no address is used twice
        self._parameters = parameters
        self._current = {_buffer(image): 0}  # storage -> number of what it holds now

    def current(self, tensor: Tensor) -> int:
        """Return the number of a tensor's activation; a new one if no operator made it."""
        self._alive.append(tensor)
        return self._current.setdefault(_buffer(tensor), len(self._current) + len(self.operators) + 1_000_000)

    def leave(self) -> None:
        """Note the end of the innermost module's forward."""
        self.within.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        shaped = _SHAPED.get(func)
        result = func(*args, **(kwargs or {})) if shaped is None else shaped(args[0])
        transposed = func._opname == "convolution" and args[6]
        name = "conv_transpose" if transposed else aten_operator(func._opname).name
        given = list(_tensors([args, kwargs or {}]))
        made = next(iter(_tensors(result)), None)
        if made is None or not made.is_floating_point():
            return result
        buffers = [_buffer(tensor) for tensor in given]
        if _buffer(made) in self._parameters or (_buffer(made) in buffers and not func._schema.is_mutable):
            return result  # a view
        reads = [self.current(tensor) for tensor in given if _buffer(tensor) not in self._parameters]
        self._alive.append(made)
        self._current[_buffer(made)] = len(self.operators) + 1
        self.operators.append(
            Operator(
                name=name,
                reads=tuple(reads),
                writes=len(self.operators) + 1,
                shape=tuple(made.shape),
                given=tuple((self._parameters.get(_buffer(tensor), ""), tuple(tensor.shape)) for tensor in given),
                stride=max(args[3]) if func._opname == "convolution" else 1,
                module=self.within[-1],
            )
        )
        return result


def _without_values(module: nn.Module) -> nn.Module:
    """Return a copy in eval mode whose tensors have shapes but no values."""
    memo: dict[int, Any] = {}
    for part in module.modules():  # tensors that are neither parameters nor buffers
        memo |= {id(v): torch.empty_like(v, device="meta") for v in vars(part).values() if isinstance(v, Tensor)}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(module, memo).eval()


def _buffer(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
