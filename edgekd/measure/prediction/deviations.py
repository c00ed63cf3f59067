"""Deviations of kernels from their counted costs: a Gaussian process over kernels, observed only through sums.

A network's latency is ``sum of cost(kernel) x exp(deviation(kernel))``, so the logarithm of measured over counted is
about the mean of its kernels' deviations, weighted by their share of the time. Deviations of kernels of one kind are
correlated, the more so the nearer their shapes are; so every measured network is evidence on every kernel like its own.
This is Gaussian process regression (Rasmussen & Williams 2006) with an additive covariance (Duvenaud et al. 2011),
where the parts of the sum are a network's kernels.

Two further terms: a deviation of the network as a whole, smooth in its size (caches, threads), and independent noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from edgekd.ir.kernels import Kernel
from edgekd.measure.prediction.costs import kernel_kind
from edgekd.store.predicted import Scales

__all__ = ["Deviations", "Mixture", "covariance", "fit_scales", "posterior"]

Floats = NDArray[np.float64]

_JITTER = 1e-9
_VECTOR = 16
_PRIOR_SPREAD = 1.0  # of each scale around its expected value, in natural logarithms


class Mixture(NamedTuple):
    """Networks as mixtures of kernels."""

    kernels: tuple[Kernel, ...]  # distinct
    shares: Floats  # (networks, kernels)
    log_size: Floats  # (networks,), of the counted latency, base 2


class Deviations(NamedTuple):
    """Log ratio of expected to counted latency, and its standard deviation, noise included."""

    mean: Floats
    spread: Floats


def fit_scales(mixture: Mixture, seen: Floats, expected: Scales, start: Scales | None = None) -> Scales:
    """Most probable scales, given the logarithms of measured over counted and the ``expected`` scales.

    ``start`` is the initial point of the optimisation; it changes the time taken, and the result only where there are
    several optima.
    """
    names = list(Scales.model_fields)
    middle = np.log([getattr(expected, name) for name in names])
    first = np.log([getattr(start or expected, name) for name in names])
    distances = _Distances(mixture.kernels, mixture.kernels)

    def loss(logarithms: Floats) -> tuple[float, Floats]:
        scales = Scales(**dict(zip(names, np.exp(logarithms), strict=True)))
        covariance, slopes = _with_slopes(scales, distances, mixture)
        try:
            factor = cho_factor(covariance, lower=True)
        except np.linalg.LinAlgError:
            return 1e6, np.zeros(len(names))
        weights = cho_solve(factor, seen)
        inverse = cho_solve(factor, np.eye(len(seen)))
        away = (logarithms - middle) / _PRIOR_SPREAD
        value = 0.5 * seen @ weights + np.log(np.diag(factor[0])).sum() + 0.5 * away @ away
        slope = [0.5 * (np.sum(inverse * part) - weights @ part @ weights) for part in slopes]
        return float(value), np.array(slope) + away / _PRIOR_SPREAD

    bounds = [(at - 3.0, at + 3.0) for at in middle]
    found = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60})
    return Scales(**{name: float(np.exp(at)) for name, at in zip(names, found.x, strict=True)})


def posterior(scales: Scales, mixture: Mixture, seen: Floats, asked: Mixture) -> Deviations:
    """Posterior deviations of the networks ``asked``, given those seen."""
    own = _covariance(scales, _Distances(mixture.kernels, mixture.kernels), mixture, mixture)
    own[np.diag_indices_from(own)] += scales.noise**2 + _JITTER
    cross = _covariance(scales, _Distances(asked.kernels, mixture.kernels), asked, mixture)
    factor = cho_factor(own, lower=True)
    prior = _variance(scales, asked)
    explained = np.einsum("ij,ji->i", cross, cho_solve(factor, cross.T))
    variance = np.maximum(prior - explained, 0.0) + scales.noise**2
    return Deviations(cross @ cho_solve(factor, seen), np.sqrt(variance))


def covariance(scales: Scales, mixture: Mixture) -> Floats:
    """Prior covariance of networks (networks, networks), before any measurement; without noise."""
    return _covariance(scales, _Distances(mixture.kernels, mixture.kernels), mixture, mixture)


class _Distances:
    """Squared differences of kernels, by feature; computed once for all scales."""

    def __init__(self, left: Sequence[Kernel], right: Sequence[Kernel]) -> None:
        ours, theirs = _described(left), _described(right)
        kinds, others = (np.array([kernel_kind(kernel) for kernel in side]) for side in (left, right))
        self.same = kinds[:, None] == others[None, :]
        inputs, outputs, self.area, full_in, full_out, taps, stride = (
            (ours[:, None, column] - theirs[None, :, column]) ** 2 for column in range(ours.shape[1])
        )
        self.channels, self.fill, self.window = inputs + outputs, full_in + full_out, taps + stride

    def correlation(self, scales: Scales) -> Floats:
        """Correlation of kernels' own deviations."""
        distance = self.channels / scales.channels**2 + self.area / scales.area**2
        distance = distance + self.fill / scales.fill**2 + self.window
        found: Floats = np.where(self.same, np.exp(-0.5 * distance), 0.0)
        return found


def _described(kernels: Sequence[Kernel]) -> Floats:
    """Features of kernels: octaves of channels in and out and of area; fill of the last vectors; octaves of window,
    stride.
    """
    rows = [
        (
            np.log2(max(1, k.inputs)),
            np.log2(max(1, k.outputs)),
            np.log2(max(1, k.height * k.width)),
            _fill(k.inputs),
            _fill(k.outputs),
            np.log2(max(1, k.taps)),
            float(k.stride),
        )
        for k in kernels
    ]
    return np.array(rows, dtype=np.float64).reshape(len(rows), 7)


def _fill(channels: int) -> float:
    return channels / (-(-channels // _VECTOR) * _VECTOR)


def _covariance(scales: Scales, distances: _Distances, left: Mixture, right: Mixture) -> Floats:
    parts = scales.kind**2 * distances.same + scales.kernel**2 * distances.correlation(scales)
    apart = (left.log_size[:, None] - right.log_size[None, :]) / scales.size
    found: Floats = left.shares @ parts @ right.shares.T + scales.network**2 * np.exp(-0.5 * apart**2)
    return found


def _with_slopes(scales: Scales, distances: _Distances, seen: Mixture) -> tuple[Floats, list[Floats]]:
    """Covariance of the observed networks, and its derivative by the logarithm of each scale, in their order."""

    def mixed(parts: Floats) -> Floats:
        found: Floats = seen.shares @ parts @ seen.shares.T
        return found

    own = scales.kernel**2 * distances.correlation(scales)
    apart = ((seen.log_size[:, None] - seen.log_size[None, :]) / scales.size) ** 2
    whole = scales.network**2 * np.exp(-0.5 * apart)
    kinds, kernels = mixed(scales.kind**2 * distances.same), mixed(own)
    noise = scales.noise**2 * np.eye(len(whole))
    slopes = {
        "kind": 2 * kinds,
        "kernel": 2 * kernels,
        "channels": mixed(own * distances.channels) / scales.channels**2,
        "area": mixed(own * distances.area) / scales.area**2,
        "fill": mixed(own * distances.fill) / scales.fill**2,
        "network": 2 * whole,
        "size": whole * apart,
        "noise": 2 * noise,
    }
    return kinds + kernels + whole + noise + _JITTER * np.eye(len(whole)), [
        slopes[name] for name in Scales.model_fields
    ]


def _variance(scales: Scales, asked: Mixture, block: int = 256) -> Floats:
    """Variance of each network alone, without noise; block by block, for the kernels of a whole space are many."""
    found = np.empty(len(asked.shares))
    for start in range(0, len(found), block):
        shares = asked.shares[start : start + block]
        used = np.flatnonzero(shares.any(axis=0))
        kernels = [asked.kernels[index] for index in used]
        distances = _Distances(kernels, kernels)
        parts = scales.kind**2 * distances.same + scales.kernel**2 * distances.correlation(scales)
        found[start : start + block] = np.einsum("ik,kl,il->i", shares[:, used], parts, shares[:, used], optimize=True)
    return found + scales.network**2
