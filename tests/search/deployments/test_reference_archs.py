"""Reference archs are distinct, and spread over what is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgekd.ir.features import StaticFeatures
from edgekd.search.deployments.reference_archs import choose_reference_archs
from edgekd.store.records import FeaturesRecord


def surveyed(lab: Any, analyser: Callable[[Any], StaticFeatures]) -> FeaturesRecord:
    space = lab.plan.space
    rows = tuple(analyser(arch) for arch in space)
    return FeaturesRecord(space_size=space.size, indices=tuple(range(space.size)), features=rows)


def plain(arch: Any) -> StaticFeatures:
    macs = int(arch["depth"] * arch["width"] ** 2 * arch["wide"])
    return StaticFeatures(
        parameters=macs, macs=macs, weight_bytes=macs, peak_activation_bytes=macs, bytes_moved=macs, depth=1
    )


def reference_archs(lab: Any, left: Sequence[int] | None = None) -> tuple[Any, ...]:
    features = surveyed(lab, plain)
    return choose_reference_archs(lab.plan, features, left if left is not None else features.indices)


def test_they_hold_the_ends_and_what_lies_between(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(reference_archs=5)
    found = reference_archs(lab)
    sizes = [plain(arch).macs for arch in found]
    everything = [plain(arch).macs for arch in lab.plan.space]
    assert len(set(found)) == 5
    assert sizes[-2:] == [min(everything), max(everything)]  # the ends come last
    assert min(everything) < min(sizes[:-2]) <= max(sizes[:-2]) < max(everything)


def test_only_what_is_left_is_taken(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(reference_archs=4)
    left = (3, 10, 20, 33, 40, 41)
    assert {lab.plan.space.at(index) for index in left} >= set(reference_archs(lab, left))


def test_a_tiny_space_gives_what_it_has(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(reference_archs=6)
    for left in ((7,), (7, 9), (7, 9, 11)):
        assert len(set(reference_archs(lab, left))) == len(left)


def test_an_arch_may_come_first(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(reference_archs=4)
    features, others = surveyed(lab, plain), reference_archs(lab)
    for index in (0, 5, lab.plan.space.size - 1):
        first = lab.plan.space.at(index)
        found = choose_reference_archs(lab.plan, features, features.indices, first)
        assert found[0] == first
        assert len(set(found)) == 4
        assert list(found[1:]) == [arch for arch in others if arch != first][:3]
    gone = [index for index in features.indices if index != 5]
    assert choose_reference_archs(lab.plan, features, gone, lab.plan.space.at(5)) == reference_archs(lab, gone)


def test_equal_features_still_give_distinct_archs(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(reference_archs=4)
    same = StaticFeatures(parameters=1, macs=1, weight_bytes=1, peak_activation_bytes=1, bytes_moved=1, depth=1)
    features = surveyed(lab, lambda _: same)
    assert len(set(choose_reference_archs(lab.plan, features, features.indices))) == 4
