"""Which archs of a space are looked at."""

from __future__ import annotations

import pytest

from edgekd.errors import Interrupted
from edgekd.events import SilentEvents
from edgekd.ir.features import StaticFeatures
from edgekd.ir.space import Arch, Axis, Space
from edgekd.search.space.analysis import analyse_space
from edgekd.store.records import FeaturesRecord


class Counted:
    """Remembers what it was asked about."""

    def __init__(self) -> None:
        self.archs: list[Arch] = []

    def features(self, arch: Arch) -> StaticFeatures:
        self.archs.append(arch)
        return StaticFeatures(
            parameters=1, macs=1, weight_bytes=4, peak_activation_bytes=1, bytes_moved=1, depth=len(self.archs)
        )


def space(axes: int) -> Space:
    return Space(axes=tuple(Axis(name=f"keep_{number}", choices=(1, 2, 3, 4)) for number in range(axes)))


def depths(record: FeaturesRecord) -> list[int]:
    """When each was looked at."""
    return [features.depth for features in record.features]


def test_a_small_space_is_looked_at_whole() -> None:
    analyser = Counted()
    record = analyse_space(space(3), analyser, 64, 0, SilentEvents())
    assert record.indices == tuple(range(64))
    assert [analyser.archs[place - 1] for place in depths(record)] == list(space(3))


def test_counting_says_how_far_it_is_and_stops_when_it_is_asked_to() -> None:
    class Watching(SilentEvents):
        def progress(self, stage: str, done: int, total: int, note: str = "") -> None:
            reported.append((stage, done, total))

        def stop(self) -> bool:
            return len(reported) == 3

    analyser, reported = Counted(), list[tuple[str, int, int]]()
    with pytest.raises(Interrupted):
        analyse_space(space(3), analyser, 64, 0, Watching())
    assert reported == [("filters", 0, 64), ("filters", 16, 64), ("filters", 32, 64)]
    assert len(analyser.archs) == 48


def test_of_a_space_beyond_64_bits_a_part_and_both_ends() -> None:
    huge, analyser = space(50), Counted()
    record = analyse_space(huge, analyser, 20, 7, SilentEvents())
    assert huge.size == record.space_size == 4**50
    assert len(set(record.indices)) == 20
    assert record.indices == tuple(sorted(record.indices))
    assert (record.indices[0], record.indices[-1]) == (0, huge.size - 1)
    assert [analyser.archs[place - 1] for place in depths(record)] == [huge.at(index) for index in record.indices]
    assert FeaturesRecord.model_validate_json(record.model_dump_json()) == record
    assert analyse_space(huge, Counted(), 20, 7, SilentEvents()).indices == record.indices
    assert analyse_space(huge, Counted(), 20, 8, SilentEvents()).indices != record.indices


def test_a_slow_family_is_looked_at_as_long_as_there_is_time() -> None:
    analyser = Counted()
    record = analyse_space(space(5), analyser, 400, 0, SilentEvents(), late=lambda: len(analyser.archs) >= 100)
    assert len(record.indices) == len(record.features) == 100
    assert (record.indices[0], record.indices[-1]) == (0, 4**5 - 1)
    assert max(b - a for a, b in zip(record.indices, record.indices[1:], strict=False)) < 80  # all over the space
    few = analyse_space(space(5), Counted(), 400, 0, SilentEvents(), late=lambda: True)
    assert len(few.indices) == 32
