"""Active learning: choice of the networks to measure next, so that all the others are predicted best.

Each is chosen for the reduction in total uncertainty over the whole list if it were measured: the criterion of Cohn
(1996), in the form Seo et al. (2000) gave it for Gaussian processes. A measurement's result plays no part in that, so
several are chosen at once. Without a fitted predictor the deviations are those expected of any device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekd.ir.kernels import Kernels
from edgekd.measure.prediction.deviations import covariance
from edgekd.measure.prediction.predictor import LatencyPredictor
from edgekd.store.predicted import Costs, Scales

__all__ = ["choose_to_measure"]

_ANY = LatencyPredictor(
    # 50 G multiply-adds and 10 GB of float32 a second, half a microsecond a kernel: rough, and only their shares count
    costs=Costs(
        form="all kernels alike",
        vector=1,
        constant_us=3.0,
        coefficients={"macs": 2e-5, "elements": 4e-4, "operators": 0.5},
    ),
    scales=Scales(),
    observations=(),
    widths=(),
    held_out=None,
)


def choose_to_measure(
    networks: Sequence[Kernels], count: int, predictor: LatencyPredictor | None = None, seen: Sequence[Kernels] = ()
) -> list[int]:
    """Indices of the most informative networks, best first; fewer where there are fewer.

    ``seen`` are further measured networks, beside the predictor's own observations.
    """
    chosen_by = predictor or _ANY
    known = [*seen, *(observation.kernels for observation in chosen_by.observations)]
    mixture, _ = chosen_by.mixture([*known, *networks])
    left = covariance(chosen_by.scales, mixture)
    noise = chosen_by.scales.noise**2

    def measured(place: int) -> None:
        column = left[:, place].copy()
        left[...] -= np.outer(column, column) / (column[place] + noise)

    for place in range(len(known)):
        measured(place)
    found: list[int] = []
    for _ in range(min(count, len(networks))):
        among = left[len(known) :, len(known) :]
        gain = (among**2).sum(axis=0) / (np.diag(among) + noise)
        gain[found] = -np.inf
        found.append(int(np.argmax(gain)))
        measured(len(known) + found[-1])
    return found
