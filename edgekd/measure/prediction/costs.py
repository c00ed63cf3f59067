"""Kernel costs: a linear model of latency with a few non-negative coefficients on counts.

::

    latency = constant + sum over kernels of (macs x a + bytes x b + c)

with one ``a`` for all kernels, or one for each sort of them, and with multiply-adds as they are or with channels
rounded up to the hardware's vector length. The form is chosen by leave-one-out error on the measurements. Where another
table is the prior (another device, backend or precision), its kernels' latencies are scaled instead: a coefficient for
all of them or one a kind, and one an operator. Residuals are relative: an error of 5 % is the same for a small network
as for a large one. Deviations of kernels from this are learned on top of it: `edgekd.measure.prediction.deviations`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.ir.kernels import Kernel, Kernels, prepares_image
from edgekd.measure.least_squares import least_squares
from edgekd.store.predicted import Costs

__all__ = ["Prior", "fit_costs", "kernel_costs", "kernel_kind", "kernel_sort", "refit_costs"]

Floats = NDArray[np.float64]
Prior = Callable[[Sequence[Kernel]], Floats]
"""Microseconds of each kernel, from another table."""

_VECTORS = (1, 8, 16, 32)  # channels computed at once


def kernel_costs(costs: Costs, kernels: Sequence[Kernel], prior: Prior | None = None) -> Floats:
    """Cost of each kernel in microseconds. ``prior`` is the one the costs were fitted with."""
    columns = _columns(costs.form, costs.vector, kernels, prior)
    found = np.zeros(len(kernels))
    for name, values in columns.items():
        found += costs.coefficients.get(name, 0.0) * values
    return found


@dataclass(frozen=True)
class _Candidate:
    form: str
    vector: int
    names: tuple[str, ...]
    design: Floats  # a row a network: 1, then the columns


def fit_costs(networks: Sequence[Kernels], measured_us: Sequence[float], prior: Prior | None = None) -> Costs:
    """Fit measured latencies. Raises ValueError on fewer than two networks."""
    forms = [(form, 1) for form in _PRIOR_FORMS] if prior else [(form, v) for form in _FORMS for v in _VECTORS]
    return _best(forms, networks, measured_us, prior)


def refit_costs(
    costs: Costs, networks: Sequence[Kernels], measured_us: Sequence[float], prior: Prior | None = None
) -> Costs:
    """Fit the coefficients of the same form to other measurements. Raises ValueError on fewer than two networks."""
    return _best([(costs.form, costs.vector)], networks, measured_us, prior)


def _best(
    forms: Sequence[tuple[str, int]], networks: Sequence[Kernels], measured_us: Sequence[float], prior: Prior | None
) -> Costs:
    if len(networks) < 2 or len(networks) != len(measured_us):
        raise ValueError(f"{len(networks)} networks and {len(measured_us)} latencies: two of each at least")
    times = np.array(measured_us, dtype=np.float64)
    every = [kernel for network in networks for kernel in network]
    owner = np.repeat(np.arange(len(networks)), [len(network) for network in networks])
    best: tuple[float, _Candidate, Floats] | None = None
    for candidate in _candidates(forms, every, owner, len(networks), prior):
        solved = least_squares(candidate.design / times[:, None], np.ones(len(times)))  # of relative residuals
        error = _left_out(candidate.design, times, solved)
        if best is None or error < best[0]:
            best = error, candidate, solved
    assert best is not None
    _, chosen, solved = best
    coefficients = {name: float(value) for name, value in zip(chosen.names, solved[1:], strict=True) if value > 0}
    return Costs(form=chosen.form, vector=chosen.vector, constant_us=float(solved[0]), coefficients=coefficients)


def kernel_sort(kernel: Kernel) -> str:
    """Sort of a kernel: runtimes have code of their own for each."""
    if kernel.kind == "conv":
        return "conv1x1" if kernel.taps == 1 else "conv" if kernel.stride == 1 else "conv strided"
    return kernel_kind(kernel)


def kernel_kind(kernel: Kernel) -> str:
    """Kind of a kernel. Kinds share nothing: operations on the input image are unlike those inside a network."""
    return "image" if prepares_image(kernel) else kernel.kind


_Group = Callable[[Kernel], str]


def _one(_: Kernel) -> str:
    return ""


def _weighted(kernel: Kernel) -> str:
    kind = kernel_kind(kernel)
    return "weighted" if kernel.macs and kind != "image" else kind


_FORMS: Mapping[str, Mapping[str, _Group]] = {  # kernels of one group share a coefficient of that count
    "all kernels alike": {"macs": _one, "elements": _one, "operators": _one},
    "macs by kind": {"macs": kernel_kind, "elements": _one, "operators": _one},
    "macs by sort": {"macs": kernel_sort, "elements": _one, "operators": _one},
    "macs and elements by sort": {"macs": kernel_sort, "elements": _weighted, "operators": _one},
}
_PRIOR_FORMS: Mapping[str, Mapping[str, _Group]] = {
    "the prior, scaled": {"prior": _one},
    "the prior, and operators": {"prior": _one, "operators": _one},
    "the prior, and elements": {"prior": _one, "elements": _one},
    "the prior by weights, and operators": {"prior": _weighted, "operators": _one},
}


def _columns(form: str, vector: int, kernels: Sequence[Kernel], prior: Prior | None) -> dict[str, Floats]:
    """Columns of a form, one value a kernel."""
    counts = {
        "macs": np.array([_padded_macs(kernel, vector) for kernel in kernels]),
        "elements": np.array([kernel.reads + kernel.writes + kernel.weights for kernel in kernels], dtype=float),
        "operators": np.ones(len(kernels)),
    }
    if prior is not None:
        counts["prior"] = prior(kernels)
    columns: dict[str, Floats] = {}
    for count, group in {**_FORMS, **_PRIOR_FORMS}[form].items():
        names = np.array([f"{count} {group(kernel)}".strip() for kernel in kernels])
        for name in dict.fromkeys(names.tolist()):
            values = np.where(names == name, counts[count], 0.0)
            if values.any():
                columns[name] = values
    return columns


def _padded_macs(kernel: Kernel, vector: int) -> float:
    outputs = -(-kernel.outputs // vector) * vector
    return kernel.macs * outputs / kernel.outputs


def _candidates(
    forms: Sequence[tuple[str, int]],
    every: Sequence[Kernel],
    owner: NDArray[np.int64],
    networks: int,
    prior: Prior | None,
) -> list[_Candidate]:
    found = []
    for form, vector in forms:
        columns = _columns(form, vector, every, prior)
        if len(columns) + 1 > max(2, networks // 2):
            continue  # too few measurements for so many coefficients
        sums = [np.bincount(owner, values, networks) for values in columns.values()]
        found.append(_Candidate(form, vector, tuple(columns), np.column_stack([np.ones(networks), *sums])))
    if not found:  # too few: only the largest of costs can be fitted
        columns = {"macs": np.array([_padded_macs(kernel, 1) for kernel in every])}
        sums = [np.bincount(owner, values, networks) for values in columns.values()]
        found.append(_Candidate("all kernels alike", 1, ("macs",), np.column_stack([np.zeros(networks), *sums])))
    return found


def _left_out(design: Floats, times: Floats, solved: Floats) -> float:
    """Leave-one-out error, root mean square, relative: by the hat matrix of the columns in use."""
    used = solved > 0
    if not used.any():
        return float("inf")
    scaled = design[:, used] / times[:, None]
    orthogonal, _ = np.linalg.qr(scaled)
    leverage = np.minimum((orthogonal**2).sum(axis=1), 0.999)
    residual = scaled @ solved[used] - 1.0
    return float(np.sqrt(np.mean((residual / (1.0 - leverage)) ** 2)))
