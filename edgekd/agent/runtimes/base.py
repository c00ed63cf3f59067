"""The shape every runtime has: it is imported, loads a file, prepares its tensors, and is called.

``call`` is the runtime's own call with everything bound beforehand, so that timing it times nothing of ours.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

__all__ = ["Placement", "Refusal", "Runtime", "Tensor", "TimedOperator", "made_up", "settled"]


class Refusal(Exception):
    """A model or a backend that can't be used, in words a person can act on."""


class Tensor(NamedTuple):
    """An input or output: ``dtype`` as numpy names it, ``shape`` with the batch axis; scales where it's quantized."""

    name: str
    dtype: str
    shape: Tuple[int, ...]
    scales: Tuple[float, ...] = ()
    zero_points: Tuple[int, ...] = ()
    axis: int = 0


class TimedOperator(NamedTuple):
    """Time in one operator of one call."""

    name: str
    kind: str
    time_us: float
    precision: str = ""


class Placement(NamedTuple):
    """Placement of operators: how many of ``total`` a delegate took, in how many partitions, and which it left."""

    total: int
    delegated: int
    partitions: int
    left_out: Tuple[str, ...] = ()


class Runtime:
    """A runtime with at most one model. Constructing it imports the runtime and nothing more."""

    call: Callable[[], object]
    shapes: Mapping[str, Sequence[int]] = {}  # asked for inputs with free axes; under no name for the only input
    clock_us: Optional[Callable[[], float]] = None  # the runtime's own time of the last call

    def load(self, path: str) -> None:
        """Load a model file. Raises whatever the runtime raises, and Refusal."""
        raise NotImplementedError

    def prepare(self, inputs: Sequence[np.ndarray[Any, Any]]) -> None:
        """Put inputs where ``call`` reads them, and make room for outputs. Can be called again."""
        raise NotImplementedError

    def inputs(self) -> List[Tensor]:
        """The model's inputs, in its own order, of the shapes they were given."""
        raise NotImplementedError

    def outputs(self) -> List[Tensor]:
        """The model's outputs, in its own order."""
        raise NotImplementedError

    def read(self) -> List[np.ndarray[Any, Any]]:
        """Copies of the outputs of the last call."""
        raise NotImplementedError

    def profile(self, path: str, calls: int) -> List[TimedOperator]:
        """Mean time in each operator over some calls, in order of running; empty where the runtime can't tell."""
        raise NotImplementedError

    def placement(self) -> Optional[Placement]:
        """Placement of the operators; None where the backend has one place only."""
        return None


def settled(
    inputs: Sequence[Tuple[str, Sequence[Optional[int]]]], shapes: Mapping[str, Sequence[int]]
) -> List[Tuple[int, ...]]:
    """The shape of each input, whose free axes are None: as was asked for, or its own with a free batch of 1.

    Raises Refusal where another axis is free and nothing was asked, or what was asked doesn't fit, or fits no input.
    """
    meant = {""} if len(inputs) == 1 else set()
    if shapes and not set(shapes) & (meant | {name for name, _ in inputs}):
        names = ", ".join("`%s`" % name for name, _ in inputs)
        raise Refusal("a shape was asked for %s, its inputs are %s" % (", ".join("`%s`" % n for n in shapes), names))
    found: List[Tuple[int, ...]] = []
    for name, axes in inputs:
        asked = shapes.get(name, shapes.get("") if len(inputs) == 1 else None)
        written = "x".join("?" if axis is None else str(axis) for axis in axes)
        if asked is None:
            if None in axes[1:]:
                example = "x".join(str(axis or (224 if place else 1)) for place, axis in enumerate(axes))
                raise Refusal("input `%s` is %s: ask for a shape, as --shape %s=%s" % (name, written, name, example))
            asked = [1 if axis is None else axis for axis in axes]
        elif len(asked) != len(axes) or any(axis not in (None, size) for axis, size in zip(axes, asked)):
            raise Refusal("input `%s` is %s, not %s" % (name, written, "x".join(map(str, asked))))
        found.append(tuple(asked))
    return found


def made_up(tensors: Sequence[Tensor], seed: int) -> List[np.ndarray[Any, Any]]:
    """Inputs by seed: normal floats, the whole range of small integers, zeros for anything that may be an index."""
    random = np.random.RandomState(seed % 2**32)
    made: List[np.ndarray[Any, Any]] = []
    for tensor in tensors:
        try:
            kind = np.dtype(tensor.dtype)
        except TypeError:
            raise Refusal("input `%s` is of %s: only numbers can be made up" % (tensor.name, tensor.dtype)) from None
        if kind.kind == "f":
            made.append(random.standard_normal(tensor.shape).astype(kind))
        elif kind.kind in "iu" and kind.itemsize <= 2:
            limits = np.iinfo(kind)
            made.append(random.randint(limits.min, limits.max + 1, tensor.shape).astype(kind))
        else:
            made.append(np.zeros(tensor.shape, kind))
    return made


def check_inputs(tensors: Sequence[Tensor], given: Sequence[np.ndarray[Any, Any]]) -> None:
    """Raises Refusal where arrays don't fit the model's inputs."""
    if len(tensors) != len(given):
        raise Refusal("the model has %d inputs, %d were given" % (len(tensors), len(given)))
    for tensor, array in zip(tensors, given):
        found: Dict[str, Any] = {"dtype": array.dtype.name, "shape": tuple(array.shape)}
        if found != {"dtype": tensor.dtype, "shape": tensor.shape}:
            raise Refusal(
                "input `%s` should be %s %s, found %s %s"
                % (tensor.name, tensor.dtype, tensor.shape, found["dtype"], found["shape"])
            )
