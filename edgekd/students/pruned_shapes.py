"""Shapes of all archs cut from one network, by arithmetic on a few traces.

Each size in a trace is a sum over channel groups, linear in the number of channels each has left. So one trace with a
group cut gives its factors, and the sizes of any arch follow; a removed module is a span of operators that is left out.
Tracing each arch of a large network takes minutes; this takes milliseconds each.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgekd.students._protocol import CutArch, Cuttable
from edgekd.students.traced import MODEL_ERRORS, Operator, Shape, Trace, trace
from edgekd.tasks._protocol import InputSpec

__all__ = ["CutTraces"]


@dataclass(frozen=True)
class CutTraces:
    """Trace of the whole network, its sizes in one row, and each channel's contribution to them."""

    whole: Trace
    sizes: NDArray[np.float64]
    channels: dict[str, int]
    shares: NDArray[np.float64]  # (groups, sizes): a channel's

    @classmethod
    def over(cls, network: Cuttable, given: InputSpec) -> CutTraces:
        """Trace the network, and with each group cut.

        Raises ValueError if a smaller one fails, or has other operators.
        """
        whole = trace(network.module, given, network.removable, located=True)
        sizes = _sizes(whole)
        rows = []
        for group, channels in network.channels.items():
            smaller = copy.deepcopy(network.module)
            left = channels // 2
            try:
                network.take(smaller, {group: left})
                found = trace(smaller, given)
            except MODEL_ERRORS as error:
                raise ValueError(f"{group}: can't run with {left} channels") from error
            if _outline(found) != _outline(whole):
                raise ValueError(f"{group}: other operators where it has {left} channels")
            rows.append((sizes - _sizes(found)) / (channels - left))
        return cls(whole, sizes, dict(network.channels), np.array(rows).reshape(len(rows), len(sizes)))

    def of(self, arch: CutArch) -> Trace:
        """Return the trace of an arch."""
        gone = np.array([float(channels - arch.channels[group]) for group, channels in self.channels.items()])
        sizes = np.rint(self.sizes - gone @ self.shares).astype(np.int64).tolist() if len(gone) else self.sizes.tolist()
        filled = _filled(self.whole, [int(size) for size in sizes])
        return _without(filled, arch) if arch.removed else filled


def _without(found: Trace, arch: CutArch) -> Trace:
    """Remove spans: readers of a span's result read its input, or the one operator in its place."""
    spans = {found.spans[name].begin: (found.spans[name], op, name) for name, op in arch.removed.items()}
    same: dict[int, int] = {}
    operators: list[Operator] = []
    place, count = 0, len(found.operators)
    while place < count:
        if place in spans:
            span, name, module = spans[place]
            reads = same.get(span.reads, span.reads)
            last = next(operator for operator in found.operators if operator.writes == span.writes)
            if name:
                given = (("", last.shape),)
                operators.append(Operator(name, (reads,), span.writes, last.shape, given, module=module))
            else:
                same[span.writes] = reads
            place = span.end
            continue
        operator = found.operators[place]
        operators.append(replace(operator, reads=tuple(same.get(number, number) for number in operator.reads)))
        place += 1
    return found.but(operators=tuple(operators), answers=tuple(same.get(answer, answer) for answer in found.answers))


def _outline(found: Trace) -> object:
    """Return everything but the sizes."""
    return (
        [(o.name, o.reads, o.writes, len(o.shape), [(n, len(s)) for n, s in o.given]) for o in found.operators],
        [(name, len(shape)) for name, shape in found.parameters.items()],
        found.answers,
    )


def _shapes(found: Trace) -> list[Shape]:
    shapes = []
    for operator in found.operators:
        shapes += [operator.shape, *(shape for _, shape in operator.given)]
    return [*shapes, *found.parameters.values()]


def _sizes(found: Trace) -> NDArray[np.float64]:
    return np.array([size for shape in _shapes(found) for size in shape], dtype=np.float64)


def _filled(found: Trace, sizes: Sequence[int]) -> Trace:
    """Return the trace with other sizes."""
    at = 0

    def next_of(shape: Shape) -> Shape:
        nonlocal at
        at += len(shape)
        return tuple(sizes[at - len(shape) : at])

    operators = []
    for operator in found.operators:
        shape = next_of(operator.shape)
        operators.append(
            replace(operator, shape=shape, given=tuple((name, next_of(its)) for name, its in operator.given))
        )
    parameters = {name: next_of(shape) for name, shape in found.parameters.items()}
    return found.but(operators=tuple(operators), parameters=parameters)
