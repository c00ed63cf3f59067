"""Who came nearest, in words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from edgekd.artefacts import Backend
from edgekd.evidence import EvidenceKind, Figure
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate, CompressionPlan
from edgekd.ir.space import Arch
from edgekd.search.outcome.nearest import _loosened, nearest_finalists, nearest_shortlisted
from edgekd.store.records import FinalistRecord, Shortlisted, ShortlistRecord
from edgekd.targets.target import Limit, Target
from edgekd.targets.verdict import judge

TARGET = Target.model_validate(
    {
        "name": "tight",
        "device": "fake-device",
        "backends": ["litert/xnnpack"],
        "budgets": {"latency": {"p50": "100 us"}},
        "accuracy": {"floor": 0.9},
    }
)


def finalist(width: int, p50: tuple[float, float, float] | None, accuracy: float = 0.95) -> FinalistRecord:
    figures = []
    if p50 is not None:
        value, low, high = p50
        figures = [
            Figure(
                metric="latency.p50", value=value, low=low, high=high, unit="us", kind=EvidenceKind.MEASURED,
                subject="0" * 64, method="as reported",
            ),
            Figure(
                metric="accuracy", value=accuracy, unit="", kind=EvidenceKind.MEASURED, subject="0" * 64, method="said"
            ),
        ]  # fmt: skip
    candidate = Candidate(
        family="resnet",
        arch=Arch.of({"width1": width}),
        plan=CompressionPlan(precision=Precision.FLOAT32),
        backend=Backend.model_validate("litert/xnnpack"),
    )
    return FinalistRecord(
        rank=0,
        trial=width,
        candidate=candidate,
        student=None,
        artefact=None,
        curve=(),
        accuracy=None,
        verdict=judge(TARGET, figures) if figures else None,
        reason="has no file",
    )


def test_the_nearest_comes_first_with_the_interval_that_decided() -> None:
    far, near, none = finalist(1, (150.0, 140.0, 160.0)), finalist(2, (95.0, 90.0, 104.0)), finalist(3, None)
    lines = nearest_finalists([none, far, near])
    assert [line.partition(":")[0].split()[1] for line in lines[1:]] == ["width1=2", "width1=1", "width1=3"]
    assert "latency.p50 95 us [90 us, 104 us] where latency.p50 <= 100 us is asked (unstable)" in lines[1]
    assert "(fails)" in lines[2]
    assert lines[3].endswith("has no file")


def test_a_miss_in_accuracy_counts_like_one_in_time() -> None:
    slow, wrong = finalist(1, (150.0, 140.0, 160.0)), finalist(2, (90.0, 89.0, 91.0), accuracy=0.8)
    lines = nearest_finalists([slow, wrong])
    assert "accuracy 0.8 where accuracy >= 0.9 is asked (fails)" in lines[1]


def test_untrained_files_are_ordered_by_what_they_can_miss() -> None:
    """An accuracy floor is no miss of theirs: it made every one infinitely far."""
    widths = {1: 150.0, 2: 101.0, 3: 120.0}
    ranked = {width: finalist(width, (us, us, us)) for width, us in widths.items()}
    seen = tuple(
        Shortlisted(trial=width, measurement=None, figures=(one.verdict.limits[0].figure,))
        for width, one in ranked.items()
        if one.verdict is not None and one.verdict.limits[0].figure is not None
    )
    trials: list[Any] = [SimpleNamespace(number=width, candidate=one.candidate) for width, one in ranked.items()]
    lines = nearest_shortlisted(TARGET, ShortlistRecord(seen=seen), trials)
    assert [line.partition(":")[0].split()[1] for line in lines[1:]] == ["width1=2", "width1=3", "width1=1"]
    assert not any("accuracy" in line for line in lines)


def test_a_bound_of_nothing_is_loosened_by_what_was_found() -> None:
    limit = Limit(metric="operators.float", bound=0.0, unit="", hard=True, written="operators.float <= 0")
    assert _loosened(limit, 3.0) == "operators.float <= 3"
