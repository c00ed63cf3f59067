"""Latency predictor: networks never measured on a device, backend and precision, from those that were.

Two layers: counted kernel costs (`edgekd.measure.prediction.costs`) and deviations from them
(`edgekd.measure.prediction.deviations`). A table of another device, backend or precision can be the prior: then its
kernels' latencies, scaled, take the place of the counts.

Intervals are honest by construction: the whole procedure is repeated with a part of the table left out, and the
interval is widened or narrowed until it would have held that share of the held-out networks (cross-conformal
prediction, Vovk 2015). The reported error is that of the same folds. Evidence kind: predicted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from edgekd.ir.kernels import Kernel, Kernels
from edgekd.measure.prediction.costs import fit_costs, kernel_costs, kernel_sort, refit_costs
from edgekd.measure.prediction.deviations import Deviations, Mixture, fit_scales, posterior
from edgekd.records import Record
from edgekd.store.predicted import Costs, HeldOut, Observation, Scales

__all__ = ["ENOUGH_ALONE", "FEWEST", "LatencyPredictor", "Predicted", "fit_predictor", "fit_prior"]

Floats = NDArray[np.float64]

FEWEST = 4
ENOUGH_ALONE = 24
"""Observations: with fewer, a table has as prior another one that has as many (`edgekd.measure.prediction.priors`)."""

_FOLDS = 10
_CONFIDENCE = 0.9
_UNKNOWN = 0.95  # of the spread of a kernel without any evidence
_SMALL = 0.02  # of the elements that a network moves
_MOST_TIMES = 16  # the elements of any measured kernel of its sort
_MOST_FOR_SCALES = 64  # measurements: the scales are fitted to no more than these


class Predicted(NamedTuple):
    """Predicted 5th percentile of one call, and the interval that holds it with the requested confidence."""

    p5_us: float
    least_us: float
    most_us: float


class LatencyPredictor(Record):
    """Fitted predictor. Its observations are part of it: they show how similar kernels deviate from the counts."""

    costs: Costs
    scales: Scales
    observations: tuple[Observation, ...]
    widths: tuple[float, ...]  # held-out errors in spreads, ascending: intervals are made from these
    held_out: HeldOut | None
    prior: Self | None = None

    def predict(self, networks: Sequence[Kernels], confidence: float = _CONFIDENCE) -> list[Predicted]:
        """Predict the latency of each network. Raises ValueError where a confidence is not between 0 and 1."""
        if not 0.0 < confidence < 1.0:
            raise ValueError(f"{confidence} is no confidence: give a share between 0 and 1")
        if not networks:
            return []
        base, found = self._expected(networks)
        width = _width(self.widths, confidence)
        middle = base * np.exp(found.mean)
        least, most = middle * np.exp(-width * found.spread), middle * np.exp(width * found.spread)
        return [Predicted(*map(float, row)) for row in zip(middle, least, most, strict=True)]

    def kernel_us(self, kernels: Sequence[Kernel]) -> Floats:
        """Expected latency of each kernel alone, in microseconds."""
        distinct = list(dict.fromkeys(kernels))
        alone = Mixture(tuple(distinct), np.eye(len(distinct)), np.full(len(distinct), np.inf))
        base = self._base(distinct)
        mixture, seen = self._seen()
        found = base * np.exp(posterior(self.scales, mixture, seen, alone).mean)
        place = {kernel: index for index, kernel in enumerate(distinct)}
        return found[[place[kernel] for kernel in kernels]]

    def unlike(self, kernels: Kernels) -> float:
        """Share of a network's expected time in kernels about which the observations have next to no information."""
        distinct = list(dict.fromkeys(kernels))
        alone = Mixture(tuple(distinct), np.eye(len(distinct)), np.full(len(distinct), np.inf))
        mixture, seen = self._seen()
        spread = posterior(self.scales, mixture, seen, alone).spread
        unknown = float(np.hypot(self.scales.kind, np.hypot(self.scales.kernel, self.scales.network)))
        far = {kernel for kernel, at in zip(distinct, spread, strict=True) if at > _UNKNOWN * unknown}
        times = self._base(kernels)
        total = float(times.sum())
        mine = sum(float(us) for kernel, us in zip(kernels, times, strict=True) if kernel in far)
        return mine / total if total > 0 else 0.0

    def unseen(self, networks: Sequence[Kernels]) -> list[tuple[str, ...]]:
        """Sorts of each network's kernels that no observation, here or of the prior, has in such a size.

        Their cost is unknown, and no interval covers it. Sorts with next to none of all moved elements are left out.
        """
        largest: dict[str, int] = {}
        known: LatencyPredictor | None = self
        while known is not None:
            for kernel in (kernel for observation in known.observations for kernel in observation.kernels):
                sort = kernel_sort(kernel)
                largest[sort] = max(largest.get(sort, 0), _moved(kernel))
            known = known.prior
        return [_strange(kernels, largest) for kernels in networks]

    def _base(self, kernels: Sequence[Kernel]) -> Floats:
        return kernel_costs(self.costs, kernels, self.prior.kernel_us if self.prior else None)

    def mixture(self, networks: Sequence[Kernels]) -> tuple[Mixture, Floats]:
        """Networks as mixtures of kernels, and the counted latency of each."""
        distinct = list(dict.fromkeys(kernel for network in networks for kernel in network))
        place = {kernel: index for index, kernel in enumerate(distinct)}
        counts = np.zeros((len(networks), len(distinct)))
        for row, network in enumerate(networks):
            for kernel in network:
                counts[row, place[kernel]] += 1.0
        parts = counts * self._base(distinct)
        total = np.maximum(parts.sum(axis=1) + self.costs.constant_us, 1e-6)
        return Mixture(tuple(distinct), parts / total[:, None], np.log2(total)), total

    def _seen(self) -> tuple[Mixture, Floats]:
        mixture, total = self.mixture([observation.kernels for observation in self.observations])
        return mixture, np.log(np.array([observation.p5_us for observation in self.observations]) / total)

    def _expected(self, networks: Sequence[Kernels]) -> tuple[Floats, Deviations]:
        asked, base = self.mixture(networks)
        mixture, seen = self._seen()
        return base, posterior(self.scales, mixture, seen, asked)


def fit_predictor(
    observations: Sequence[Observation], prior: LatencyPredictor | None = None, seed: int = 0
) -> LatencyPredictor:
    """Fit observations. Raises ValueError on fewer than four."""
    from scipy.stats import spearmanr  # half a second, for a fit alone

    if len(observations) < FEWEST:
        raise ValueError(f"{len(observations)} observations: a predictor is fitted to {FEWEST} at least")
    whole = _fitted(observations, prior)
    count = len(observations)
    folds = np.random.default_rng(seed).permutation(np.arange(count) % min(_FOLDS, count))
    base, mean, spread = np.empty(count), np.empty(count), np.empty(count)
    for fold in np.unique(folds):
        out = np.flatnonzero(folds == fold)
        rest = [observation for index, observation in enumerate(observations) if folds[index] != fold]
        part = _fitted(rest, _without(prior, [observations[int(index)] for index in out]), whole.scales)
        base[out], (mean[out], spread[out]) = part._expected([observations[int(index)].kernels for index in out])
    seen = np.array([observation.p5_us for observation in observations])
    predicted = base * np.exp(mean)
    widths = np.sort(np.abs(np.log(seen / predicted)) / spread)
    errors = np.abs(predicted / seen - 1.0)
    rank = None if np.ptp(seen) == 0 or np.ptp(predicted) == 0 else float(spearmanr(seen, predicted).statistic)
    held_out = HeldOut(
        samples=count,
        median=float(np.median(errors)),
        p95=float(np.quantile(errors, 0.95)),
        worst=float(errors.max()),
        rank=rank,
    )
    return whole.but(widths=tuple(map(float, widths)), held_out=held_out)


def fit_prior(observations: Sequence[Observation]) -> LatencyPredictor:
    """Fit a prior for another table: without intervals and errors, which a prior does not need.

    Raises ValueError on fewer than four observations.
    """
    if len(observations) < FEWEST:
        raise ValueError(f"{len(observations)} observations: a predictor is fitted to {FEWEST} at least")
    return _fitted(observations, None)


def _fitted(
    observations: Sequence[Observation], prior: LatencyPredictor | None, start: Scales | None = None
) -> LatencyPredictor:
    """Fit costs and scales, without intervals."""
    networks, times = (
        [observation.kernels for observation in observations],
        [observation.p5_us for observation in observations],
    )
    costs = fit_costs(networks, times, prior.kernel_us if prior else None)
    plain = LatencyPredictor(
        costs=costs, scales=Scales(), observations=tuple(observations), widths=(), held_out=None, prior=prior
    )
    few = plain
    if len(observations) > _MOST_FOR_SCALES:
        step = len(observations) / _MOST_FOR_SCALES
        few = plain.but(observations=tuple(observations[int(step * at)] for at in range(_MOST_FOR_SCALES)))
    mixture, seen = few._seen()
    return plain.but(scales=fit_scales(mixture, seen, prior.scales if prior else Scales(), start))


def _without(prior: LatencyPredictor | None, left_out: Sequence[Observation]) -> LatencyPredictor | None:
    """Prior refitted without these networks: it was often measured on the very same ones.

    Their observations are removed, and coefficients fitted to the others. The form and the scales stay. Networks are
    the same where kernels that multiply are: files of one differ by format in how the input is scaled.
    """
    if prior is None:
        return None
    hidden = {_multiplying(observation.kernels) for observation in left_out}
    rest = tuple(observation for observation in prior.observations if _multiplying(observation.kernels) not in hidden)
    below = _without(prior.prior, left_out)
    if len(rest) == len(prior.observations) and below is prior.prior:
        return prior
    if len(rest) < FEWEST:
        return below
    networks, times = [observation.kernels for observation in rest], [observation.p5_us for observation in rest]
    if (below is None) is (prior.prior is None):
        costs = refit_costs(prior.costs, networks, times, below.kernel_us if below else None)
    else:  # no observation is left that it was scaled from
        costs = fit_costs(networks, times)
    return prior.but(costs=costs, observations=rest, prior=below)


def _strange(kernels: Kernels, largest: Mapping[str, int]) -> tuple[str, ...]:
    asked: dict[str, list[int]] = {}
    for kernel in kernels:
        asked.setdefault(kernel_sort(kernel), []).append(_moved(kernel))
    least = _SMALL * sum(map(sum, asked.values()))
    return tuple(
        sorted(
            sort for sort, each in asked.items() if sum(each) > least and max(each) > _MOST_TIMES * largest.get(sort, 0)
        )
    )


def _moved(kernel: Kernel) -> int:
    return kernel.reads + kernel.writes + kernel.weights


def _multiplying(kernels: Kernels) -> Kernels:
    return tuple(sorted(kernel for kernel in kernels if kernel.macs))


def _width(widths: Sequence[float], confidence: float) -> float:
    """Half width of an interval in spreads: of n held-out errors, the (n + 1) x confidence smallest."""
    normal = float(ndtri(0.5 + confidence / 2))
    if not widths:
        return normal
    rank = math.ceil((len(widths) + 1) * confidence)
    if rank <= len(widths):
        return widths[rank - 1]
    return max(widths[-1], normal)  # too few to tell the tail: no narrower than a normal one
