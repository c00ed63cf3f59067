"""Block costs: cost tables of an arch's parts over the few axes each depends on.

A sum of such tables has an exact expectation without sampling: if axes are drawn independently, a table's is the sum
over its cells of probability times cost. So any cost that is additive over parts (multiply-adds, bytes, or a latency
fitted to them) is differentiable in the probabilities. Evidence kind: analytic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.ir.space import Arch, Axis

__all__ = ["DEPTHWISE", "BlockCost", "Cost", "Floats", "Table", "ranks_of"]

DEPTHWISE = "depthwise "
"""Prefix of the name of a block cost of depthwise convolutions only."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Cost for every combination of choices of some axes, in their order: (choices of axis 1, of axis 2, ...).

    If an axis does not exist, the cost is the same for all of its choices.
    """

    axes: tuple[str, ...]
    values: Floats

    def at(self, ranks: Mapping[str, int]) -> float:
        """Return the cell of one arch, by the ranks of its choices."""
        return float(self.values[tuple(ranks[axis] for axis in self.axes)])


@dataclass(frozen=True)
class BlockCost:
    """Block cost: counts of a part of every arch at float32 and batch 1, as in `edgekd.students.analysis`.

    ``counts`` has the keys ``macs``, ``bytes`` (every operator's inputs, outputs and weights), ``weights`` (elements)
    and ``operators``; all have one shape, the choices of ``axes``. A family may add other counts, for the latency model
    to choose from.
    """

    name: str
    axes: tuple[str, ...]
    counts: Mapping[str, Floats]

    def table(self, count: str) -> Table:
        """Return the table of one count."""
        return Table(self.axes, self.counts[count])


@dataclass(frozen=True)
class Cost:
    """Cost of an arch: the sum of a constant and of tables."""

    constant: float
    tables: tuple[Table, ...]

    @classmethod
    def counted(cls, block_costs: Sequence[BlockCost], count: str, scale: float = 1.0) -> Cost:
        """Return a count summed over all block costs, times ``scale``."""
        return cls(0.0, tuple(Table(block.axes, scale * block.counts[count]) for block in block_costs))

    def of(self, arch: Arch, axes: Sequence[Axis]) -> float:
        """Return the cost of one arch of the space with these axes."""
        ranks = ranks_of(arch, axes)
        return self.constant + sum(table.at(ranks) for table in self.tables)

    def times(self, factor: float) -> Cost:
        """Return the cost multiplied by a factor."""
        return Cost(self.constant * factor, tuple(Table(table.axes, table.values * factor) for table in self.tables))

    def merged(self) -> Cost:
        """Return the same cost with one table for each set of axes."""
        found: dict[tuple[str, ...], Floats] = {}
        for table in self.tables:
            found[table.axes] = found.get(table.axes, np.zeros(table.values.shape)) + table.values
        return Cost(self.constant, tuple(Table(axes, values) for axes, values in found.items()))


def ranks_of(arch: Arch, axes: Sequence[Axis]) -> dict[str, int]:
    """Return the rank of an arch's choice on every axis; 0 for an axis that does not exist in it."""
    picks = dict(arch.choices)
    return {axis.name: axis.choices.index(picks[axis.name]) if axis.name in picks else 0 for axis in axes}
