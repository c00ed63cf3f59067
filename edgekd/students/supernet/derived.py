"""Block costs derived from traced archs: tables over axes, for any family whose axes are local.

A part of a network (one kernel) depends on few axes: a convolution on the widths before and after it. These are found
by changing one axis at a time. Then every combination of their choices is counted: choices with equal counts are traced
once, and along an axis on which a part's sizes are a polynomial of second degree (widths: weights and multiply-adds are
their products) three choices are traced and the others interpolated. Parts of the same axes are added up into one
`BlockCost`, depthwise convolutions separately, since devices run them at other rates. A sample of the space is counted
to check that the block costs add up exactly.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from edgekd.errors import ConfigurationError
from edgekd.ir.space import Arch, Axis, Choice, Space
from edgekd.students.analysis import Part
from edgekd.students.supernet.block_costs import DEPTHWISE, BlockCost, Cost, Floats
from edgekd.tasks._protocol import TaskSpec

__all__ = ["derived_block_costs", "require_classification"]

_VECTORS = (16, 32)  # channels that kernels compute at once: a layer of 24 may take as long as one of 32
_MOST = 20_000  # archs to trace, some 15 ms each
_CHECKED = 16


def require_classification(spec: TaskSpec) -> None:
    """Raise ConfigurationError for a task with other heads than one of classification."""
    if not spec.plain:
        raise ConfigurationError.one(
            f"the choice of an arch is trained for one classification head, and task `{spec.name}` has others",
            "leave search.by out: archs are then tried side by side",
        )


def derived_block_costs(
    space: Space, parts: Callable[[Arch], Sequence[Part]], place: Callable[[Arch, str], str] = lambda _, name: name
) -> tuple[BlockCost, ...]:
    """Return the block costs of all archs of a space.

    ``parts`` traces an arch; ``place`` gives a module a name that is the same in every arch that has it. Raises
    ConfigurationError if parts depend on so many axes together that not all combinations can be traced, or if the block
    costs do not add up.
    """
    traced = _Traced(space, parts, place)
    merged: dict[tuple[bool, tuple[str, ...]], dict[str, Floats]] = {}
    for along, keys in _grids(traced).items():
        axes = tuple(axis.name for axis, _, _ in along)
        for key, sizes in _filled(traced, along, keys).items():
            known = merged.setdefault((key.depthwise, axes), {})
            for name, values in _counts(sizes).items():
                known[name] = known[name] + values if name in known else values
    block_costs = tuple(
        BlockCost(f"{DEPTHWISE if depthwise else ''}{', '.join(axes) or 'constant'}", axes, counts)
        for (depthwise, axes), counts in sorted(merged.items(), key=lambda item: item[0])
    )
    _check(traced, block_costs)
    return block_costs


class _Key(NamedTuple):
    """Identity of a part: its module, and the number of the kernel in it."""

    module: str
    number: int
    depthwise: bool


class _Along(NamedTuple):
    """Dependence of some parts' sizes on an axis: ranks to trace, and how they determine the others."""

    axis: Axis
    ranks: tuple[int, ...]
    alike: tuple[int, ...]  # for each choice the index in ``ranks`` of one with equal counts; (): interpolated

    def spread(self) -> Floats:
        """Return the matrix (choices, ranks) from values at ``ranks`` to values at all choices."""
        if self.alike:
            return np.eye(len(self.ranks))[list(self.alike)]
        return _interpolation([float(choice) for choice in self.axis.choices], self.ranks)


class _Traced:
    """Sizes of each part of an arch: outputs, multiply-adds, elements moved, weights, 1. Each arch is traced once."""

    def __init__(
        self, space: Space, parts: Callable[[Arch], Sequence[Part]], place: Callable[[Arch, str], str]
    ) -> None:
        self.space, self._parts, self._place = space, parts, place
        self.axes = [axis for axis in space.axes if len(axis.choices) > 1]
        self.largest: Mapping[str, Choice] = {axis.name: axis.choices[-1] for axis in space.axes}
        self._known: dict[Arch, Mapping[_Key, Floats]] = {}

    def of(self, wanted: Mapping[str, Choice]) -> Mapping[_Key, Floats]:
        """Return the sizes of the arch with these choices."""
        arch = self.space.arch(wanted)
        if arch not in self._known:
            found: dict[_Key, Floats] = {}
            numbers: dict[str, int] = {}
            for part in self._parts(arch):
                module = self._place(arch, part.module)
                numbers[module] = numbers.get(module, -1) + 1
                sizes = [part.outputs, part.macs, part.moved, part.weights, 1]
                found[_Key(module, numbers[module], part.kind == "depthwise")] = np.array(sizes, dtype=np.float64)
            self._known[arch] = found
        return self._known[arch]


_ABSENT = np.zeros(5)


def _grids(traced: _Traced) -> dict[tuple[_Along, ...], list[_Key]]:
    """Return, grouped, the parts that depend on the same axes in the same way."""
    lines: dict[_Key, dict[str, list[Floats]]] = {}  # at each reference: (choices, sizes) along each axis
    for reference in _references(traced):
        rows = {
            axis.name: [traced.of({**reference, axis.name: choice}) for choice in axis.choices] for axis in traced.axes
        }
        for key in dict.fromkeys(key for found in rows.values() for row in found for key in row):
            for name, found in rows.items():
                line = np.array([row.get(key, _ABSENT) for row in found])
                lines.setdefault(key, {}).setdefault(name, []).append(line)
    grids: dict[tuple[_Along, ...], list[_Key]] = {}
    for key, by_axis in lines.items():
        along = [_along(axis, np.concatenate(by_axis[axis.name], axis=1)) for axis in traced.axes]
        grids.setdefault(tuple(one for one in along if one is not None), []).append(key)
    archs = {along: math.prod(len(one.ranks) for one in along) for along in grids}
    if sum(archs.values()) > _MOST:
        worst = max(archs, key=lambda along: archs[along])
        raise ConfigurationError.one(
            f"the costs of a part depend on {' and '.join(one.axis.name for one in worst)} together, which are "
            f"{archs[worst]:,} combinations to trace; {_MOST:,} are the most",
            "give these axes fewer choices, or search by sampling: leave search.by out",
        )
    return grids


def _along(axis: Axis, lines: Floats) -> _Along | None:
    """Return the dependence on one axis, from a part's sizes (choices, sizes at all references); None if constant."""
    rows = [row.tobytes() for row in lines]
    ranks = tuple(dict.fromkeys(map(rows.index, rows)))
    if len(ranks) == 1:
        return None
    three = (0, len(rows) // 2, len(rows) - 1)
    if len(ranks) > len(three) and not axis.categorical:
        guessed = _Along(axis, three, ())
        if np.array_equal(np.rint(guessed.spread() @ lines[list(three)]), lines):
            return guessed
    return _Along(axis, ranks, tuple(ranks.index(rows.index(row)) for row in rows))


def _interpolation(at: Sequence[float], ranks: Sequence[int]) -> Floats:
    """Return Lagrange interpolation weights (all, ranks) from values at some ranks to values at all."""
    columns = []
    for rank in ranks:
        others = [at[other] for other in ranks if other != rank]
        columns.append([math.prod((x - other) / (at[rank] - other) for other in others) for x in at])
    return np.array(columns).T


def _references(traced: _Traced) -> Iterator[Mapping[str, Choice]]:
    """Yield reference archs: the largest, also with each other category; an unequal one, also without optional axes.

    In the largest, stages may have equal widths, which hides the width that a part depends on.
    """
    unequal = {axis.name: axis.choices[-1 - place % len(axis.choices)] for place, axis in enumerate(traced.axes)}
    unequal |= {axis.name: axis.choices[-1] for axis in traced.axes if axis.categorical}
    yield traced.largest
    yield unequal
    deciding = {condition.axis for axis in traced.axes for condition in axis.when}
    for axis in traced.axes:
        if axis.name in deciding:
            yield {**unequal, **{name: traced.largest[name] for name in deciding}, axis.name: axis.choices[0]}
        for choice in axis.choices[:-1] if axis.categorical else ():
            yield {**traced.largest, axis.name: choice}


def _filled(traced: _Traced, along: Sequence[_Along], keys: Sequence[_Key]) -> dict[_Key, Floats]:
    """Return the sizes of these parts, (choices of axis 1, of axis 2, ..., sizes)."""
    shape = [len(one.ranks) for one in along]
    found = {key: np.zeros((*shape, len(_ABSENT))) for key in keys}
    for places in itertools.product(*map(range, shape)):
        picks = {one.axis.name: one.axis.choices[one.ranks[at]] for one, at in zip(along, places, strict=True)}
        sizes = traced.of({**traced.largest, **picks})
        for key, values in found.items():
            values[places] = sizes.get(key, _ABSENT)
    for place, one in enumerate(along):
        spread = one.spread()
        found = {
            key: np.rint(np.moveaxis(np.tensordot(spread, values, (1, place)), 0, place))
            for key, values in found.items()
        }
    return found


def _counts(sizes: Floats) -> dict[str, Floats]:
    """Return the counts in the form of a `BlockCost`."""
    outputs, macs, moved, weights, operators = np.moveaxis(sizes, -1, 0)
    found = {"macs": macs, "bytes": 4.0 * (moved + weights), "weights": weights, "operators": operators}
    for vector in _VECTORS:
        found[f"macs{vector}"] = macs / np.maximum(outputs, 1.0) * np.ceil(outputs / vector) * vector
    return found


def _check(traced: _Traced, block_costs: Sequence[BlockCost]) -> None:
    """Raise ConfigurationError if the block costs of a sampled arch differ from its counts."""
    for index in traced.space.indices(_CHECKED, seed=0):
        arch = traced.space.at(index)
        counted = _counts(np.array(list(traced.of(dict(arch.choices)).values())))
        for name in ("macs", "bytes", "weights", "operators"):
            if Cost.counted(block_costs, name).of(arch, traced.space.axes) != counted[name].sum():
                raise ConfigurationError.one(
                    f"the {name} of this family are no sum over parts that depend on few axes each: {arch} differs",
                    "search by sampling: leave search.by out",
                )
