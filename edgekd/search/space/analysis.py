"""Static features of a whole space, or of an even sample of a large one: features.json."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from edgekd.events import Events, stop_if_asked
from edgekd.ir.features import StaticFeatures
from edgekd.ir.kernels import Kernels
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch, Space
from edgekd.search._protocol import StaticAnalyser
from edgekd.store.records import FeaturesRecord
from edgekd.students._protocol import Family
from edgekd.students.analysis import analyse_arch, kernels_of_arch
from edgekd.tasks._protocol import TaskSpec

__all__ = ["FamilyAnalyser", "analyse_space"]

_FEWEST = 32


def analyse_space(
    space: Space,
    analyser: StaticAnalyser,
    most: int,
    seed: int,
    events: Events,
    late: Callable[[], bool] = lambda: False,
) -> FeaturesRecord:
    """Count the features of every arch, or of ``most`` of them (see `Space.indices`). Raises Interrupted.

    Once it is ``late``, as with a large model of the user's own, counting stops after the first few dozen.
    """
    indices = space.indices(most, seed)
    middle = indices[1:-1]
    random.Random(seed).shuffle(middle)  # wherever counting stops, the counted archs are spread evenly
    features: dict[int, StaticFeatures] = {}
    for done, index in enumerate([*indices[:1], *indices[-1:], *middle]):
        if done >= _FEWEST and late():
            break
        if done % 16 == 0:
            stop_if_asked(events)
            events.progress("filters", done, len(indices))
        features[index] = analyser.features(space.at(index))
    looked_at = sorted(features)
    return FeaturesRecord(
        space_size=space.size, indices=tuple(looked_at), features=tuple(features[index] for index in looked_at)
    )


@dataclass(frozen=True)
class FamilyAnalyser:
    """Static analyser on tensors without values: some 15 ms an arch."""

    family: Family
    spec: TaskSpec

    def features(self, arch: Arch) -> StaticFeatures:
        """Count features at float32."""
        return analyse_arch(self.family, arch, self.spec, Precision.FLOAT32)

    def kernels(self, arch: Arch) -> Kernels:
        """Return the kernels, counted together with the features."""
        return kernels_of_arch(self.family, arch, self.spec)
