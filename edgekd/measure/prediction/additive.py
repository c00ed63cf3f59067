"""Additive latency model fitted to measured archs: a sum over the parts of an arch, so that it is differentiable.

::

    latency = constant + sum over parts and counts of coefficient x count,   no coefficient below zero

Counts are those of `students.supernet.block_costs`. A few forms are tried, from three coefficients for the whole
network to one or two for every part, each with multiply-adds as they are and rounded up to whole vectors of channels;
the one with the least leave-one-out error is taken. Residuals are relative: an error of 5 % is the same for a small
arch as for a large one. The model is needed to find archs near a budget, so an arch counts the less the further it is
from that: 1 / (1 + 4 log(latency / budget)^2). On archs of 5 to 7 us, with most of the table at 20 to 160, errors of 12
to 26 % came down to 3 to 5 %. The reported error is that of the whole procedure, choice of the form included, on archs
it has not seen (nested folds), over the half of the table that is nearer to the budget. Evidence kind: predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.ir.space import Arch, Axis
from edgekd.measure.least_squares import least_squares
from edgekd.records import Record
from edgekd.students.supernet.block_costs import DEPTHWISE, BlockCost, Cost, Table, ranks_of

__all__ = ["LatencyModel", "fit_latency"]

Floats = NDArray[np.float64]

_FOLDS = 8
_MACS = ("macs", "macs16", "macs32")


class LatencyModel(Record):
    """Fitted latency model, in microseconds; ``coefficients`` are by part and count, ``stage2.first:macs``."""

    form: str
    constant_us: float
    coefficients: Mapping[str, float]
    samples: int
    error_median: float  # of held-out archs, relative, without sign, over those nearer to the budget
    error_worst: float

    def cost(self, block_costs: Sequence[BlockCost]) -> Cost:
        """Cost of these blocks, in microseconds. Zero tables are left out."""
        tables = []
        for block in block_costs:
            parts = [value * block.counts[count] for count, value in self._of(block.name)]
            if parts:
                tables.append(Table(block.axes, np.sum(parts, axis=0)))
        return Cost(self.constant_us, tuple(tables)).merged()

    def _of(self, block: str) -> list[tuple[str, float]]:
        named = [(name.rpartition(":"), value) for name, value in self.coefficients.items()]
        return [(count, value) for (owner, _, count), value in named if owner == block]


@dataclass(frozen=True)
class _Form:
    """Form of the model: groups of (part, count) that share a coefficient."""

    name: str
    groups: tuple[tuple[tuple[str, str], ...], ...]


def fit_latency(
    block_costs: Sequence[BlockCost],
    axes: Sequence[Axis],
    archs: Sequence[Arch],
    measured_us: Sequence[float],
    near_us: float,
) -> LatencyModel:
    """Fit the 5th percentiles of some archs, best around ``near_us``. Raises ValueError on fewer than four."""
    if len(archs) < 4 or len(archs) != len(measured_us):
        raise ValueError(f"{len(archs)} archs and {len(measured_us)} latencies: four of each at least")
    forms, times = _forms(block_costs), np.array(measured_us, dtype=np.float64)
    designs = [_design(form, block_costs, axes, archs) for form in forms]
    far = np.abs(np.log(times / near_us))
    weights = 1.0 / (1.0 + 4.0 * far**2)
    best = _best(designs, times, weights)
    solved = _solved(designs[best], times, weights)
    errors = _held_out(designs, times, weights)[np.argsort(far, kind="stable")[: max(4, len(times) // 2)]]
    coefficients = {
        f"{block}:{count}": round(float(value), 12)
        for group, value in zip(forms[best].groups, solved[1:], strict=True)
        for block, count in group
        if value > 0
    }
    return LatencyModel(
        form=forms[best].name,
        constant_us=round(float(solved[0]), 9),
        coefficients=coefficients,
        samples=len(archs),
        error_median=round(float(np.median(np.abs(errors))), 6),
        error_worst=round(float(np.max(np.abs(errors))), 6),
    )


def _forms(block_costs: Sequence[BlockCost]) -> list[_Form]:
    names = [block.name for block in block_costs]
    known = set.intersection(*(set(block.counts) for block in block_costs))
    forms = []
    for macs in [count for count in _MACS if count in known]:
        whole = {count: tuple((name, count) for name in names) for count in (macs, "bytes", "operators")}
        each = {count: tuple(((name, count),) for name in names) for count in (macs, "bytes", "operators")}
        forms += [
            _Form(f"{macs}, bytes and operators of the whole", tuple(whole.values())),
            *_by_kind(names, macs, whole),
            _Form(f"{macs} of each part, bytes and operators", (*each[macs], whole["bytes"], whole["operators"])),
            _Form(f"{macs} and bytes of each part, operators", (*each[macs], *each["bytes"], whole["operators"])),
            _Form(f"{macs} and operators of each part, bytes", (*each[macs], *each["operators"], whole["bytes"])),
        ]
    return forms


def _by_kind(names: Sequence[str], macs: str, whole: Mapping[str, tuple[tuple[str, str], ...]]) -> list[_Form]:
    """Forms with depthwise multiply-adds separate from the others, if any: devices do fewer of them in a second."""
    apart = tuple((name, macs) for name in names if name.startswith(DEPTHWISE))
    others = tuple(pair for pair in whole[macs] if pair not in apart)
    if not apart or not others:
        return []
    return [
        _Form(
            f"{macs} of depthwise and other parts, bytes and operators",
            (others, apart, whole["bytes"], whole["operators"]),
        )
    ]


def _design(form: _Form, block_costs: Sequence[BlockCost], axes: Sequence[Axis], archs: Sequence[Arch]) -> Floats:
    """Design matrix, one row an arch: 1, then each group's count."""
    by_name = {block.name: block for block in block_costs}
    ranks = [ranks_of(arch, axes) for arch in archs]
    columns = [
        [sum(by_name[block].table(count).at(row) for block, count in group) for row in ranks] for group in form.groups
    ]
    return np.column_stack([np.ones(len(archs)), *map(np.array, columns)])


def _solved(design: Floats, times: Floats, weights: Floats) -> Floats:
    """Non-negative least squares of the weighted relative residuals."""
    return least_squares(design * (weights / times)[:, None], weights)


def _errors(design: Floats, times: Floats, weights: Floats) -> Floats:
    """Leave-one-out errors, relative: each sample predicted from all the others."""
    found = np.empty(len(times))
    for row in range(len(times)):
        rest = np.arange(len(times)) != row
        found[row] = design[row] @ _solved(design[rest], times[rest], weights[rest]) / times[row] - 1.0
    return found


def _best(designs: Sequence[Floats], times: Floats, weights: Floats) -> int:
    return int(np.argmin([np.linalg.norm(weights * _errors(design, times, weights)) for design in designs]))


def _held_out(designs: Sequence[Floats], times: Floats, weights: Floats) -> Floats:
    """Cross-validated relative errors of the whole procedure: the form is chosen without the fold as well."""
    found = np.empty(len(times))
    folds = np.arange(len(times)) % min(_FOLDS, len(times))
    for fold in np.unique(folds):
        out = folds == fold
        best = _best([design[~out] for design in designs], times[~out], weights[~out])
        solved = _solved(designs[best][~out], times[~out], weights[~out])
        found[out] = designs[best][out] @ solved / times[out] - 1.0
    return found
