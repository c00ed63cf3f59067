"""Arms: only the dominated go, and never for noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from edgekd.artefacts import Backend
from edgekd.devices._protocol import Job, MeasurePlan
from edgekd.errors import MissingError
from edgekd.evidence import EvidenceKind, Figure
from edgekd.export._protocol import ConversionOutcome
from edgekd.ir.numerics import Precision
from edgekd.ir.support import COMPARED
from edgekd.search.deployments.arms import better_arm, decide_arms, failures, rivals, still_in
from edgekd.store.records import AnchorRecord, Arm, ArmReading
from edgekd.targets.target import Target
from edgekd.testing.fakes.device import FakeDevice, TimingNoise

F32, F16, DYNAMIC, INT8 = COMPARED
LITERT, ORT = Backend.model_validate("litert/xnnpack"), Backend.model_validate("onnxruntime/cpu")
SPEED = Target.model_validate({"name": "t", "device": "d", "backends": ["litert/xnnpack"]})
SIZE = SPEED.but(budgets={"size": {"file": "1 MiB"}})


def arm(backend: Backend, precision: Precision) -> Arm:
    return Arm(backend=backend, precision=precision)


def anchor(lab: Any, number: int, lows: Mapping[Arm, float | None], noise: float = 0.01, **sizes: int) -> AnchorRecord:
    arch = lab.plan.space.at(number)
    readings = []
    for one, low in lows.items():
        figure = Figure(
            metric="latency.low", value=low or 0, unit="us", kind=EvidenceKind.MEASURED, subject="d", method="m"
        )
        size = sizes.get(one.precision.name.lower(), 4000 if one.precision is F32 else 1000)
        readings.append(
            ArmReading(
                arm=one, arch=arch, measurement=None, size_bytes=size if low else None,
                low_us=figure if low else None, detail="" if low else "refused: no such operator",
            )
        )  # fmt: skip
    return AnchorRecord(number=number, arch=arch, readings=tuple(readings), noise=noise)


def decided(lab: Any, target: Target, *anchors: AnchorRecord) -> Any:
    return decide_arms(target, lab.plan, [a.arch for a in anchors], anchors)


@pytest.fixture
def lab(make_lab: Callable[..., Any]) -> Any:
    return make_lab(arms=(arm(LITERT, F32), arm(LITERT, INT8), arm(ORT, F32), arm(ORT, INT8)), anchors=2)


def lows(a: float | None, b: float | None, c: float | None, d: float | None) -> dict[Arm, float | None]:
    return {arm(LITERT, F32): a, arm(LITERT, INT8): b, arm(ORT, F32): c, arm(ORT, INT8): d}


def test_the_fastest_at_each_fidelity_stay(lab: Any) -> None:
    found = decided(lab, SPEED, anchor(lab, 0, lows(100, 60, 130, 90)), anchor(lab, 1, lows(10, 6, 13, 9)))
    assert found.kept == (arm(LITERT, F32), arm(LITERT, INT8))
    assert "1.30x the latency of litert/xnnpack float32" in found.dropped[0].reason


def test_a_slower_int8_goes_unless_its_size_is_the_point(lab: Any) -> None:
    anchors = (anchor(lab, 0, lows(100, 150, 130, 160)), anchor(lab, 1, lows(10, 15, 13, 16)))
    assert decided(lab, SPEED, *anchors).kept == (arm(LITERT, F32),)
    assert decided(lab, SIZE, *anchors).kept == (arm(LITERT, F32), arm(LITERT, INT8))


def test_a_difference_within_the_noise_drops_nobody(lab: Any) -> None:
    values = lows(100, 60, 104, 62)
    calm = decided(lab, SPEED, anchor(lab, 0, values, 0.01), anchor(lab, 1, values, 0.01))
    noisy = decided(lab, SPEED, anchor(lab, 0, values, 0.01), anchor(lab, 1, values, 0.05))
    assert len(calm.kept) == 2
    assert noisy.kept == lab.plan.arms


def test_one_anchor_where_it_wins_keeps_an_arm(lab: Any) -> None:
    found = decided(lab, SPEED, anchor(lab, 0, lows(100, 60, 115, 200)), anchor(lab, 1, lows(10, 6, 9, 20)))
    assert arm(ORT, F32) in found.kept


def test_an_arm_that_runs_on_nothing_goes_with_its_reason(lab: Any) -> None:
    found = decided(lab, SPEED, anchor(lab, 0, lows(100, None, 130, 90)), anchor(lab, 1, lows(10, None, 13, 9)))
    reasons = {d.arm: d.reason for d in found.dropped}
    assert "no such operator" in reasons[arm(LITERT, INT8)]
    assert arm(ORT, INT8) in found.kept


def test_rivals_are_as_faithful_and_came_near_somewhere(lab: Any) -> None:
    anchors = (anchor(lab, 0, lows(100, 60, 120, 50)), anchor(lab, 1, lows(10, 6, 14, 11)))
    assert rivals(arm(LITERT, INT8), lab.plan.arms, anchors) == (arm(ORT, INT8),)
    assert rivals(arm(LITERT, F32), lab.plan.arms, anchors) == (arm(ORT, F32),)


def test_a_finalist_goes_on_at_the_arm_that_beats_its_own_beyond_the_noise(lab: Any) -> None:
    def better(target: Target, values: Mapping[Arm, float | None], noise: float = 0.01) -> Arm:
        return better_arm(target, arm(LITERT, INT8), lab.plan.arms, anchor(lab, 0, values).readings, noise)

    assert better(SPEED, lows(100, 60, 100, 50)) == arm(ORT, INT8)
    assert better(SPEED, lows(100, 60, 100, 50), noise=0.3) == arm(LITERT, INT8)
    assert better(SPEED, lows(40, 60, 100, 50)) == arm(LITERT, F32)
    # float32 is faster here, but four times as large where size is limited
    assert better(SIZE, lows(40, 60, 100, 100)) == arm(LITERT, INT8)
    assert better(SPEED, lows(None, 60, None, None)) == arm(LITERT, INT8)


def test_an_early_anchor_drops_only_clear_losers(lab: Any) -> None:
    first = anchor(lab, 0, lows(100, 60, 115, 90))
    assert arm(ORT, F32) in still_in(SPEED, lab.plan, [first])
    assert arm(ORT, INT8) not in still_in(SPEED, lab.plan, [first])


def test_rungs_between_are_measured_where_an_end_is_still_in(make_lab: Callable[..., Any]) -> None:
    ladder = tuple(arm(backend, precision) for backend in (LITERT, ORT) for precision in (F32, F16, DYNAMIC, INT8))
    lab = make_lab(arms=ladder, anchors=2)
    assert {a.precision for a in still_in(SPEED, lab.plan, [])} == {F32, INT8}
    first = anchor(lab, 0, lows(100, 60, 200, 200))
    assert still_in(SPEED, lab.plan, [first]) == ladder[:4]
    second = anchor(lab, 1, dict(zip(ladder[:4], (100, 99, 80, 60), strict=True)))
    found = decided(lab, SPEED, first, second)
    assert found.kept == ladder[:4]
    unmeasured = [d for d in found.dropped if d.arm in (ladder[5], ladder[6])]
    assert all(d.reason.startswith("not measured") for d in unmeasured)
    assert len(unmeasured) == 2


def test_never_slower_is_told_of_every_compressed_arm(lab: Any) -> None:
    found = decided(lab, SIZE, anchor(lab, 0, lows(100, 50, 100, 200)), anchor(lab, 1, lows(10, 5, 10, 20)))
    told = {n.arm: n for n in found.never_slower}
    assert told[arm(LITERT, INT8)].ratio == pytest.approx(0.5)
    assert told[arm(LITERT, INT8)].faster
    assert told[arm(ORT, INT8)].ratio == pytest.approx(2.0)
    assert not told[arm(ORT, INT8)].faster
    assert told[arm(ORT, INT8)].smaller


def test_the_tail_factor_is_that_of_the_kept_arms(lab: Any, tmp_path: Any) -> None:
    def readings(tail: float) -> Any:
        session = FakeDevice(lambda _: 50.0, noise=TimingNoise(low=0, body=0, tail=tail)).open()
        artefact = lab.artefact(lab.estimated[0] if lab.estimated else _candidate(lab), tmp_path / "m.tflite")
        return session.measure([Job(artefact=artefact, backend=LITERT)], MeasurePlan())[0]

    base = anchor(lab, 0, lows(100, 60, 130, 90))
    calm, wild = readings(0.0), readings(1.0)
    kept = (arm(LITERT, F32), arm(LITERT, INT8))
    measured = [r.but(measurement=calm if r.arm in kept else wild) for r in base.readings]
    assert decided(lab, SPEED, base.but(readings=measured)).tail == pytest.approx(1.0)
    measured = [r.but(measurement=wild) for r in base.readings]
    assert decided(lab, SPEED, base.but(readings=measured)).tail > 1.3


def _candidate(lab: Any) -> Any:
    from edgekd.ir.plan import Candidate

    return Candidate(family="resnet", arch=lab.plan.space.at(0), backend=LITERT)


def test_rungs_between_ends_that_failed_are_not_called_dominated(make_lab: Callable[..., Any]) -> None:
    ladder = tuple(arm(backend, precision) for backend in (LITERT, ORT) for precision in (F32, F16, INT8))
    lab = make_lab(arms=ladder, anchors=2)
    seen = {arm(LITERT, F32): None, arm(LITERT, INT8): None, arm(ORT, F32): 100.0, arm(ORT, INT8): 90.0}
    found = decided(lab, SPEED, anchor(lab, 0, seen))
    reasons = {dropped.arm: dropped.reason for dropped in found.dropped}
    assert reasons[arm(LITERT, F16)] == "not measured: float32 and int8 ran on no anchor here"
    assert failures(found) == {"refused: no such operator": (arm(LITERT, F32), arm(LITERT, INT8))}


def test_what_could_not_be_made_is_told_with_its_reason(lab: Any) -> None:
    lab.conversions = lambda c: (
        ConversionOutcome.REFUSED if c.plan.precision is INT8 else ConversionOutcome.OK
    )  # as of a layer without integer kernels
    lab.search()
    (line,) = [line for line in lab.lines if line.strip().startswith("no ")]
    assert line.strip() == "no litert/xnnpack int8, onnxruntime/cpu int8: scripted refused"


def test_where_nothing_runs_the_converters_own_reason_is_the_error(lab: Any) -> None:
    lab.conversions = lambda _: ConversionOutcome.REFUSED
    with pytest.raises(MissingError, match="scripted refused") as caught:
        lab.search()
    assert "dominated" not in str(caught.value)
