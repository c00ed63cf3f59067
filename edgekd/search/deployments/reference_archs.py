"""Reference archs: a few archs spread over the filtered space, on which the deployments are compared.

Reads features.json and the filters. The smallest and the largest arch by operations are among them, the others fill the
widest gaps (farthest point in the logarithms of the features), so that no deployment is judged at one end of the space
alone. The whole of the user's own model comes before all others where it runs: most of its files are trials too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekd.ir.space import Arch
from edgekd.store.records import FeaturesRecord, PlanRecord

__all__ = ["choose_reference_archs"]


def choose_reference_archs(
    plan: PlanRecord, features: FeaturesRecord, left: Sequence[int], first: Arch | None = None
) -> tuple[Arch, ...]:
    """Return ``plan.reference_archs`` distinct archs, or all in ``left`` if fewer. Ties go to the smaller index.

    The arch ``first`` comes before all others if it is in ``left``.
    """
    by_index = dict(zip(features.indices, features.features, strict=True))
    rows = [by_index[index] for index in left]
    table = np.log1p(
        np.array([[f.macs, f.parameters, f.peak_activation_bytes, f.bytes_moved, f.depth] for f in rows], dtype=float)
    )
    spread = np.ptp(table, axis=0)
    table = (table - table.min(axis=0)) / np.where(spread > 0, spread, 1.0)
    macs = [f.macs for f in rows]
    picked = [int(np.argmin(macs))]
    if len(rows) > 1 and plan.reference_archs > 1:
        largest = int(np.argmax(macs))
        picked.append(largest if largest != picked[0] else 1)
    while len(picked) < min(plan.reference_archs, len(rows)):
        distance = np.min([np.square(table - table[pick]).sum(axis=1) for pick in picked], axis=0)
        distance[picked] = -1.0
        picked.append(int(np.argmax(distance)))
    # the middle before the extremes: a typical arch exposes a hopeless deployment at once
    order = [*picked[2:], *picked[:2]]
    archs = [plan.space.at(left[pick]) for pick in order]
    if first is not None and plan.space.index(first) in left:
        archs = [first, *(arch for arch in archs if arch != first)][: len(archs)]
    return tuple(archs)
