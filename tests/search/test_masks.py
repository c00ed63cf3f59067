"""Masks remove only what can't fit, and count each arch once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgekd.artefacts import Backend, Precision
from edgekd.evidence import EvidenceKind
from edgekd.search.masks import at_precision, mask
from edgekd.store.records import Arm, FeaturesRecord, StaticFeatures
from edgekd.targets.target import Target

MIB = 1 << 20


def features(*parameters: int, peak: int = 0) -> FeaturesRecord:
    rows = tuple(
        StaticFeatures(
            parameters=n, macs=n, weight_bytes=4 * n, peak_activation_bytes=peak, bytes_moved=4 * n + 100, depth=3
        )
        for n in parameters
    )
    return FeaturesRecord(space_size=100, indices=tuple(range(len(rows))), features=rows)


def target(**budgets: Any) -> Target:
    fields = {"name": "t", "device": "d", "backends": ["litert/xnnpack"], "budgets": budgets}
    return Target.model_validate(fields)


def test_a_size_budget_is_held_against_weights_at_each_precision(make_lab: Callable[..., Any]) -> None:
    found = mask(target(size={"file": "1000 B"}), make_lab().plan, features(200, 500, 1001))
    assert found.allowed == {Precision.FLOAT32: (0,), Precision.INT8: (0, 1)}
    assert found.left == (0, 1)
    assert [(m.name, m.removed, m.kind) for m in found.record.masks] == [("size.file", 1, EvidenceKind.ANALYTIC)]
    assert (found.record.space_size, found.record.considered, found.record.left) == (100, 3, 2)


def test_each_arch_is_counted_at_the_first_mask_that_removes_it(make_lab: Callable[..., Any]) -> None:
    limits = target(memory={"model": "1 MiB"}, size={"file": "1 MiB"})
    found = mask(limits, make_lab().plan, features(1000, 3 * MIB, 9 * MIB))
    assert [(m.name, m.removed) for m in found.record.masks] == [("memory.model", 2), ("size.file", 0)]


def test_memory_has_room_for_what_the_runtime_held_already(make_lab: Callable[..., Any]) -> None:
    limits = target(memory={"model": "1 MiB"})
    assert mask(limits, make_lab().plan, features(1000, peak=2 * MIB - 4000)).left == (0,)
    assert mask(limits, make_lab().plan, features(1000, peak=9 * MIB)).left == ()


def test_informative_budgets_and_other_metrics_remove_nothing(make_lab: Callable[..., Any]) -> None:
    limits = target(size={"file": "1 B", "report": True}, latency={"p95": "1 us"})
    found = mask(limits, make_lab().plan, features(1000))
    assert found.left == (0,)
    assert found.record.masks == ()


def test_precisions_are_those_of_the_arms(make_lab: Callable[..., Any]) -> None:
    arm = Arm(backend=Backend.model_validate("litert/xnnpack"), precision=Precision.FLOAT16)
    assert list(mask(target(), make_lab(arms=(arm,)).plan, features(1)).allowed) == [Precision.FLOAT16]


def test_features_at_a_precision() -> None:
    plain = features(100, peak=800).features[0]
    assert at_precision(plain, Precision.FLOAT32) == plain
    int8 = at_precision(plain, Precision.INT8)
    assert (int8.weight_bytes, int8.peak_activation_bytes, int8.bytes_moved) == (100, 200, 125)
    half = at_precision(plain, Precision.FLOAT16)
    assert (half.weight_bytes, half.peak_activation_bytes) == (200, 800)
