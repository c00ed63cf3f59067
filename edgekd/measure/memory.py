"""Memory model for networks never measured: a few coefficients on counted bytes.

::

    memory = constant + weights x a + largest kernel's activations x b + all activations x c

with no coefficient below zero. Runtimes allocate in pages and pools, so the error is given in bytes, of networks that
were left out one after the other. Evidence kind: predicted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekd.ir.kernels import Kernels
from edgekd.measure.least_squares import least_squares
from edgekd.store.predicted import MemoryFit

__all__ = ["fit_memory", "predict_memory"]

_FEWEST = 6
_CONFIDENCE = 0.9

Floats = NDArray[np.float64]


def predict_memory(fit: MemoryFit, kernels: Kernels) -> tuple[float, float, float]:
    """Predicted bytes that a model adds, and the interval that holds them in nine of ten cases."""
    found = fit.constant_bytes + float(np.dot(fit.coefficients, _counts(kernels)))
    return found, max(0.0, found - fit.error_bytes), found + fit.error_bytes


def fit_memory(networks: Sequence[Kernels], measured_bytes: Sequence[float]) -> MemoryFit:
    """Fit measured bytes. Raises ValueError on fewer than six networks."""
    if len(networks) < _FEWEST or len(networks) != len(measured_bytes):
        raise ValueError(f"{len(networks)} networks and {len(measured_bytes)} measurements: {_FEWEST} of each at least")
    design = np.array([(1.0, *_counts(kernels)) for kernels in networks])
    found = np.array(measured_bytes, dtype=np.float64)
    errors = []
    for place in range(len(found)):
        rest = np.arange(len(found)) != place
        errors.append(abs(float(design[place] @ least_squares(design[rest], found[rest])) - found[place]))
    rank = min(len(errors), math.ceil((len(errors) + 1) * _CONFIDENCE))
    constant, *coefficients = map(float, least_squares(design, found))
    return MemoryFit(
        constant_bytes=constant,
        coefficients=(coefficients[0], coefficients[1], coefficients[2]),
        samples=len(found),
        error_bytes=sorted(errors)[rank - 1],
    )


def _counts(kernels: Kernels) -> tuple[float, float, float]:
    return (
        float(sum(kernel.weights for kernel in kernels)),
        float(max((kernel.reads + kernel.writes for kernel in kernels), default=0)),
        float(sum(kernel.writes for kernel in kernels)),
    )
