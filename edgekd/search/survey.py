"""Static features of a whole space, or of an even sample where it is large: features.json."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.artefacts import Precision
from edgekd.events import Events, stop_if_asked
from edgekd.search._protocol import Surveyor
from edgekd.store.records import FeaturesRecord, StaticFeatures
from edgekd.students._protocol import Arch, Family, Space
from edgekd.students.analysis import analyse_arch
from edgekd.tasks._protocol import TaskSpec

__all__ = ["FamilySurveyor", "survey"]


def survey(space: Space, surveyor: Surveyor, most: int, seed: int, events: Events) -> FeaturesRecord:
    """Count the features of every arch, or of ``most`` of them (see `Space.indices`). Raises Interrupted."""
    indices = space.indices(most, seed)
    features = []
    for done, index in enumerate(indices):
        if done % 16 == 0:
            stop_if_asked(events)
            events.progress("masks", done, len(indices))
        features.append(surveyor.features(space.at(index)))
    return FeaturesRecord(space_size=space.size, indices=tuple(indices), features=tuple(features))


@dataclass(frozen=True)
class FamilySurveyor:
    """Counts on tensors without values: some 25 ms an arch."""

    family: Family
    spec: TaskSpec

    def features(self, arch: Arch) -> StaticFeatures:
        """At float32."""
        return analyse_arch(self.family, arch, self.spec, Precision.FLOAT32)
