"""How kernels differ from what they are counted to cost: a Gaussian process over kernels, seen only through sums.

A network's latency is ``sum of cost(kernel) x exp(deviation(kernel))``, so the logarithm of measured over counted is
about the mean of its kernels' deviations, weighted by their share of the time. Deviations of kernels of one kind are
correlated, the more so the nearer their shapes are; so every network that was measured says something of every kernel
like its own. This is Gaussian process regression (Rasmussen & Williams 2006) with an additive covariance (Duvenaud et
al. 2011), where the parts of the sum are a network's kernels.

Beside it: a deviation of the network as a whole, smooth in its size (caches, threads), and independent noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from edgekd.kernels import Kernel
from edgekd.store.predicted import Scales

__all__ = ["Deviations", "Mixture", "fit_scales", "posterior"]

Floats = NDArray[np.float64]

_JITTER = 1e-9
_VECTOR = 16
_PRIOR_SPREAD = 1.0  # of each scale around where it is expected, in natural logarithms


class Mixture(NamedTuple):
    """Networks as shares of kernels."""

    kernels: tuple[Kernel, ...]  # distinct
    shares: Floats  # (networks, kernels)
    log_size: Floats  # (networks,), of the counted latency, base 2


class Deviations(NamedTuple):
    """Logarithm of what is expected over what is counted, and its standard deviation, noise included."""

    mean: Floats
    spread: Floats


def fit_scales(mixture: Mixture, seen: Floats, start: Scales) -> Scales:
    """The most probable scales, given the logarithms of measured over counted, with ``start`` as what is expected."""
    names = list(Scales.model_fields)
    expected = np.log([getattr(start, name) for name in names])
    distances = _Distances(mixture.kernels, mixture.kernels)

    def loss(logarithms: Floats) -> float:
        scales = Scales(**dict(zip(names, np.exp(logarithms), strict=True)))
        covariance = _covariance(scales, distances, mixture, mixture, noise=True)
        try:
            factor = cho_factor(covariance, lower=True)
        except np.linalg.LinAlgError:
            return 1e6
        fit = 0.5 * seen @ cho_solve(factor, seen) + np.log(np.diag(factor[0])).sum()
        return float(fit + 0.5 * np.sum(((logarithms - expected) / _PRIOR_SPREAD) ** 2))

    bounds = [(at - 3.0, at + 3.0) for at in expected]
    found = minimize(loss, expected, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60})
    return Scales(**{name: float(np.exp(at)) for name, at in zip(names, found.x, strict=True)})


def posterior(scales: Scales, mixture: Mixture, seen: Floats, asked: Mixture) -> Deviations:
    """What the networks that were seen say of others."""
    own = _covariance(scales, _Distances(mixture.kernels, mixture.kernels), mixture, mixture, noise=True)
    cross = _covariance(scales, _Distances(asked.kernels, mixture.kernels), asked, mixture, noise=False)
    factor = cho_factor(own, lower=True)
    prior = _variance(scales, asked)
    explained = np.einsum("ij,ji->i", cross, cho_solve(factor, cross.T))
    variance = np.maximum(prior - explained, 0.0) + scales.noise**2
    return Deviations(cross @ cho_solve(factor, seen), np.sqrt(variance))


class _Distances:
    """Squared differences of kernels, by what they are differences of; computed once for all scales."""

    def __init__(self, left: Sequence[Kernel], right: Sequence[Kernel]) -> None:
        ours, theirs = _described(left), _described(right)
        self.same = np.array([k.kind for k in left])[:, None] == np.array([k.kind for k in right])[None, :]
        squared = (ours[:, None, :] - theirs[None, :, :]) ** 2
        self.channels = squared[..., :2].sum(axis=-1)
        self.area = squared[..., 2]
        self.fill = squared[..., 3:5].sum(axis=-1)
        self.window = squared[..., 5:].sum(axis=-1)

    def correlation(self, scales: Scales) -> Floats:
        """Of kernels' own deviations."""
        distance = self.channels / scales.channels**2 + self.area / scales.area**2
        distance = distance + self.fill / scales.fill**2 + self.window
        found: Floats = np.where(self.same, np.exp(-0.5 * distance), 0.0)
        return found


def _described(kernels: Sequence[Kernel]) -> Floats:
    """Octaves of channels in and out and of area; how full the last vectors are; octaves of the window, and stride."""
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


def _covariance(scales: Scales, distances: _Distances, left: Mixture, right: Mixture, *, noise: bool) -> Floats:
    parts = scales.kind**2 * distances.same + scales.kernel**2 * distances.correlation(scales)
    apart = (left.log_size[:, None] - right.log_size[None, :]) / scales.size
    found: Floats = left.shares @ parts @ right.shares.T + scales.network**2 * np.exp(-0.5 * apart**2)
    if noise:
        found[np.diag_indices_from(found)] += scales.noise**2 + _JITTER
    return found


def _variance(scales: Scales, asked: Mixture, block: int = 256) -> Floats:
    """Of each network alone, without noise; a block at a time, for the kernels of a whole space are many."""
    found = np.empty(len(asked.shares))
    for start in range(0, len(found), block):
        shares = asked.shares[start : start + block]
        used = np.flatnonzero(shares.any(axis=0))
        kernels = [asked.kernels[index] for index in used]
        distances = _Distances(kernels, kernels)
        parts = scales.kind**2 * distances.same + scales.kernel**2 * distances.correlation(scales)
        found[start : start + block] = np.einsum("ik,kl,il->i", shares[:, used], parts, shares[:, used], optimize=True)
    return found + scales.network**2
