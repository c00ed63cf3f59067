"""Deployments: only the dominated go, and never for noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from edgekd.artefacts import Backend
from edgekd.devices._protocol import Job, Measurement, MeasurePlan, Outcome, Simulated
from edgekd.errors import MissingError
from edgekd.evidence import EvidenceKind, Figure
from edgekd.export._protocol import ConversionOutcome
from edgekd.ir.numerics import Precision
from edgekd.ir.support import COMPARED
from edgekd.records import digest_json
from edgekd.search.deployments.ranking import better_deployment, decide_deployments, failures, rivals, still_in
from edgekd.store.records import Deployment, DeploymentObservation, ReferenceArchRecord
from edgekd.targets.target import Target
from edgekd.testing.fakes.device import FakeDevice, TimingNoise

F32, F16, DYNAMIC, INT8 = COMPARED
LITERT, ORT = Backend.model_validate("litert/xnnpack"), Backend.model_validate("onnxruntime/cpu")
SPEED = Target.model_validate({"name": "t", "device": "d", "backends": ["litert/xnnpack"]})
SIZE = SPEED.but(budgets={"size": {"file": "1 MiB"}})


def deployment(backend: Backend, precision: Precision) -> Deployment:
    return Deployment(backend=backend, precision=precision)


def reference_arch(
    lab: Any, number: int, lows: Mapping[Deployment, float | None], noise: float = 0.01, **sizes: int
) -> ReferenceArchRecord:
    arch = lab.plan.space.at(number)
    observations = []
    for one, low in lows.items():
        figure = Figure(
            metric="latency.p5", value=low or 0, unit="us", kind=EvidenceKind.MEASURED, subject="d", method="m"
        )
        size = sizes.get(one.precision.name.lower(), 4000 if one.precision is F32 else 1000)
        observations.append(
            DeploymentObservation(
                deployment=one, arch=arch, measurement=None, size_bytes=size if low else None,
                p5_us=figure if low else None, detail="" if low else "refused: no such operator",
            )
        )  # fmt: skip
    return ReferenceArchRecord(number=number, arch=arch, observations=tuple(observations), noise=noise)


def decided(lab: Any, target: Target, *reference_archs: ReferenceArchRecord) -> Any:
    return decide_deployments(target, lab.plan, [a.arch for a in reference_archs], reference_archs)


@pytest.fixture
def lab(make_lab: Callable[..., Any]) -> Any:
    return make_lab(
        deployments=(deployment(LITERT, F32), deployment(LITERT, INT8), deployment(ORT, F32), deployment(ORT, INT8)),
        reference_archs=2,
    )


def lows(a: float | None, b: float | None, c: float | None, d: float | None) -> dict[Deployment, float | None]:
    return {deployment(LITERT, F32): a, deployment(LITERT, INT8): b, deployment(ORT, F32): c, deployment(ORT, INT8): d}


def test_a_slower_int8_stays_where_a_compiler_estimates_less_memory(lab: Any) -> None:
    def estimated(record: ReferenceArchRecord) -> ReferenceArchRecord:
        return record.but(
            observations=[r.but(measurement=estimate(r.deployment), size_bytes=1) for r in record.observations]
        )

    first, second = lows(100, 150, 130, 160), lows(10, 15, 13, 16)
    records = [estimated(reference_arch(lab, number, each)) for number, each in enumerate((first, second))]
    assert decided(lab, SIZE, *records).kept == (deployment(LITERT, F32),)
    memory = SPEED.but(budgets={"memory": {"model": "1 MiB"}})
    assert decided(lab, memory, *records).kept == (deployment(LITERT, F32), deployment(LITERT, INT8))


def estimate(one: Deployment) -> Measurement:
    memory = 1000 if one.precision is INT8 else 4000
    return Measurement(
        sha256=digest_json("file"),
        backend=one.backend,
        fingerprint=digest_json("device"),
        kind=EvidenceKind.SIMULATED,
        plan=MeasurePlan(),
        outcome=Outcome.OK,
        simulated=Simulated(compiler="c", version="1", seconds=1e-4, memory_bytes=memory),
    )


def test_the_fastest_at_each_fidelity_stay(lab: Any) -> None:
    found = decided(
        lab, SPEED, reference_arch(lab, 0, lows(100, 60, 130, 90)), reference_arch(lab, 1, lows(10, 6, 13, 9))
    )
    assert found.kept == (deployment(LITERT, F32), deployment(LITERT, INT8))
    assert "1.30x the latency of litert/xnnpack float32" in found.dropped[0].reason


def test_a_slower_int8_goes_unless_its_size_is_the_point(lab: Any) -> None:
    reference_archs = (reference_arch(lab, 0, lows(100, 150, 130, 160)), reference_arch(lab, 1, lows(10, 15, 13, 16)))
    assert decided(lab, SPEED, *reference_archs).kept == (deployment(LITERT, F32),)
    assert decided(lab, SIZE, *reference_archs).kept == (deployment(LITERT, F32), deployment(LITERT, INT8))


def test_a_difference_within_the_noise_drops_nobody(lab: Any) -> None:
    values = lows(100, 60, 104, 62)
    calm = decided(lab, SPEED, reference_arch(lab, 0, values, 0.01), reference_arch(lab, 1, values, 0.01))
    noisy = decided(lab, SPEED, reference_arch(lab, 0, values, 0.01), reference_arch(lab, 1, values, 0.05))
    assert len(calm.kept) == 2
    assert noisy.kept == lab.plan.deployments


def test_one_reference_arch_where_it_wins_keeps_an_deployment(lab: Any) -> None:
    found = decided(
        lab, SPEED, reference_arch(lab, 0, lows(100, 60, 115, 200)), reference_arch(lab, 1, lows(10, 6, 9, 20))
    )
    assert deployment(ORT, F32) in found.kept


def test_an_deployment_that_runs_on_nothing_goes_with_its_reason(lab: Any) -> None:
    found = decided(
        lab, SPEED, reference_arch(lab, 0, lows(100, None, 130, 90)), reference_arch(lab, 1, lows(10, None, 13, 9))
    )
    reasons = {d.deployment: d.reason for d in found.dropped}
    assert "no such operator" in reasons[deployment(LITERT, INT8)]
    assert deployment(ORT, INT8) in found.kept


def test_rivals_are_as_faithful_and_came_near_somewhere(lab: Any) -> None:
    reference_archs = (reference_arch(lab, 0, lows(100, 60, 120, 50)), reference_arch(lab, 1, lows(10, 6, 14, 11)))
    assert rivals(deployment(LITERT, INT8), lab.plan.deployments, reference_archs) == (deployment(ORT, INT8),)
    assert rivals(deployment(LITERT, F32), lab.plan.deployments, reference_archs) == (deployment(ORT, F32),)


def test_a_finalist_goes_on_at_the_deployment_that_beats_its_own_beyond_the_noise(lab: Any) -> None:
    def better(target: Target, values: Mapping[Deployment, float | None], noise: float = 0.01) -> Deployment:
        return better_deployment(
            target, deployment(LITERT, INT8), lab.plan.deployments, reference_arch(lab, 0, values).observations, noise
        )

    assert better(SPEED, lows(100, 60, 100, 50)) == deployment(ORT, INT8)
    assert better(SPEED, lows(100, 60, 100, 50), noise=0.3) == deployment(LITERT, INT8)
    assert better(SPEED, lows(40, 60, 100, 50)) == deployment(LITERT, F32)
    # float32 is faster here, but four times as large where size is limited
    assert better(SIZE, lows(40, 60, 100, 100)) == deployment(LITERT, INT8)
    assert better(SPEED, lows(None, 60, None, None)) == deployment(LITERT, INT8)


def test_an_early_reference_arch_drops_only_clear_losers(lab: Any) -> None:
    first = reference_arch(lab, 0, lows(100, 60, 115, 90))
    assert deployment(ORT, F32) in still_in(SPEED, lab.plan, [first])
    assert deployment(ORT, INT8) not in still_in(SPEED, lab.plan, [first])


def test_the_whole_model_alone_drops_only_clear_losers(lab: Any) -> None:
    first, second = (reference_arch(lab, number, lows(100, 60, 115, 90)) for number in (0, 1))
    assert deployment(ORT, F32) not in decided(lab, SPEED, first).kept
    lab.plan = lab.plan.but(whole_first=True, original=first.arch)
    assert decided(lab, SPEED, first).kept == (deployment(LITERT, F32), deployment(LITERT, INT8), deployment(ORT, F32))
    assert deployment(ORT, F32) not in decided(lab, SPEED, first, second).kept


def test_precisions_between_are_measured_where_an_end_is_still_in(make_lab: Callable[..., Any]) -> None:
    precisions = tuple(
        deployment(backend, precision) for backend in (LITERT, ORT) for precision in (F32, F16, DYNAMIC, INT8)
    )
    lab = make_lab(deployments=precisions, reference_archs=2)
    assert {a.precision for a in still_in(SPEED, lab.plan, [])} == {F32, INT8}
    first = reference_arch(lab, 0, lows(100, 60, 200, 200))
    assert still_in(SPEED, lab.plan, [first]) == precisions[:4]
    second = reference_arch(lab, 1, dict(zip(precisions[:4], (100, 99, 80, 60), strict=True)))
    found = decided(lab, SPEED, first, second)
    assert found.kept == precisions[:4]
    unmeasured = [d for d in found.dropped if d.deployment in (precisions[5], precisions[6])]
    assert all(d.reason.startswith("not measured") for d in unmeasured)
    assert len(unmeasured) == 2


def test_never_slower_is_reported_of_every_compressed_deployment(lab: Any) -> None:
    found = decided(
        lab, SIZE, reference_arch(lab, 0, lows(100, 50, 100, 200)), reference_arch(lab, 1, lows(10, 5, 10, 20))
    )
    compared = {n.deployment: n for n in found.never_slower}
    assert compared[deployment(LITERT, INT8)].ratio == pytest.approx(0.5)
    assert compared[deployment(LITERT, INT8)].faster
    assert compared[deployment(ORT, INT8)].ratio == pytest.approx(2.0)
    assert not compared[deployment(ORT, INT8)].faster
    assert compared[deployment(ORT, INT8)].smaller


def test_the_tail_factor_is_that_of_the_kept_deployments(lab: Any, tmp_path: Any) -> None:
    def observations(tail: float) -> Any:
        session = FakeDevice(lambda _: 50.0, noise=TimingNoise(low=0, body=0, tail=tail)).open()
        artefact = lab.artefact(lab.estimated[0] if lab.estimated else _candidate(lab), tmp_path / "m.tflite")
        return session.measure([Job(artefact=artefact, backend=LITERT)], MeasurePlan())[0]

    base = reference_arch(lab, 0, lows(100, 60, 130, 90))
    calm, wild = observations(0.0), observations(1.0)
    kept = (deployment(LITERT, F32), deployment(LITERT, INT8))
    measured = [r.but(measurement=calm if r.deployment in kept else wild) for r in base.observations]
    assert decided(lab, SPEED, base.but(observations=measured)).tail == pytest.approx(1.0)
    measured = [r.but(measurement=wild) for r in base.observations]
    assert decided(lab, SPEED, base.but(observations=measured)).tail > 1.3


def _candidate(lab: Any) -> Any:
    from edgekd.ir.plan import Candidate

    return Candidate(family="resnet", arch=lab.plan.space.at(0), backend=LITERT)


def test_precisions_between_ends_that_failed_are_not_called_dominated(make_lab: Callable[..., Any]) -> None:
    precisions = tuple(deployment(backend, precision) for backend in (LITERT, ORT) for precision in (F32, F16, INT8))
    lab = make_lab(deployments=precisions, reference_archs=2)
    seen = {
        deployment(LITERT, F32): None,
        deployment(LITERT, INT8): None,
        deployment(ORT, F32): 100.0,
        deployment(ORT, INT8): 90.0,
    }
    found = decided(lab, SPEED, reference_arch(lab, 0, seen))
    reasons = {dropped.deployment: dropped.reason for dropped in found.dropped}
    assert reasons[deployment(LITERT, F16)] == "not measured: float32 and int8 ran on no reference arch here"
    assert failures(found) == {"refused: no such operator": (deployment(LITERT, F32), deployment(LITERT, INT8))}


@pytest.mark.slow
def test_what_could_not_be_made_is_reported_with_its_reason(lab: Any) -> None:
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
