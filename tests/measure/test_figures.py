"""Figures carry value, interval, unit, kind, subject and method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Delegation, Job, Load, MeasurePlan, Outcome
from edgekd.evidence import EvidenceKind
from edgekd.measure.figures import figure_of, figures_for_limits, figures_of
from edgekd.targets.target import Target
from edgekd.testing.fakes import FakeDevice, Script

JOB = Job(
    artefact=Artefact(path=Path("m.tflite"), format=Format.TFLITE, sha256="1" * 64, size_bytes=5000),
    backend=Backend(runtime="litert", provider="xnnpack"),
)


def measure(**options):
    return FakeDevice({"m": 100.0}, **options).open().measure([JOB], MeasurePlan())[0]


def test_every_metric_has_its_unit_and_subject():
    measurement = measure()
    figures = {figure.metric: figure for figure in figures_of(measurement, size_bytes=5000)}
    latencies = {f"latency.{part}" for part in ("p5", "p50", "p95", "p99", "mean", "first", "load")}
    assert set(figures) == latencies | {"memory.model", "memory.process", "throughput", "size.file"}
    assert {figures[name].unit for name in latencies} == {"us"}
    assert figures["memory.model"].unit == figures["size.file"].unit == "B"
    assert figures["throughput"].unit == "/s"
    assert figures["latency.p95"].subject == measurement.fingerprint
    assert figures["size.file"].subject == measurement.sha256
    assert "median over 5 fresh processes of the per-process 95th percentile" in figures["latency.p95"].method


def test_a_runtime_that_reports_its_own_time_has_a_figure_of_it():
    silent = measure()
    assert "latency.runtime" not in {figure.metric for figure in figures_of(silent)}
    reported = silent.but(processes=[p.but(runtime_p50_us=80.0 + i) for i, p in enumerate(silent.processes)])
    figure = figure_of(reported, "latency.runtime")
    assert (figure.value, figure.unit) == (82.0, "us")
    assert "runtime's own time" in figure.method
    mixed = silent.but(processes=[silent.processes[0].but(runtime_p50_us=80.0), *silent.processes[1:]])
    assert "latency.runtime" not in {figure.metric for figure in figures_of(mixed)}


def test_memory_that_the_device_does_not_report_has_no_figure():
    reported = measure()
    silent = reported.but(
        processes=[p.but(memory_model_bytes=None, memory_process_bytes=None) for p in reported.processes]
    )
    assert {f.metric for f in figures_of(reported)} - {f.metric for f in figures_of(silent)} == {
        "memory.model",
        "memory.process",
    }


TIMED = [f"latency.{part}" for part in ("p5", "p50", "p95", "p99", "mean")] + ["throughput"]


def test_the_load_is_reported_as_it_was():
    closed, plan = measure(), MeasurePlan(load=Load(pattern="periodic", rate_hz=12.5))
    periodic = closed.but(plan=plan)
    for metric in TIMED:
        assert "back to back" in figure_of(closed, metric).method
        assert "at 12.5 calls a second" in figure_of(periodic, metric).method
        assert "back to back" not in figure_of(periodic, metric).method
    assert "calls a second" not in figure_of(periodic, "latency.load").method


def test_missed_calls_are_a_share_and_only_of_a_periodic_load():
    closed = measure()
    assert "load.missed" not in {figure.metric for figure in figures_of(closed)}
    processes = [
        p.but(calls=100, missed=missed) for p, missed in zip(closed.processes, (0, 5, 10, 80, 99), strict=True)
    ]
    late = closed.but(plan=MeasurePlan(load=Load(pattern="periodic", rate_hz=10.0)), processes=processes)
    figure = figure_of(late, "load.missed")
    assert (figure.value, figure.unit, figure.low) == (pytest.approx(0.1), "", 0.0)
    assert figure.high == 1.0  # a share


def test_a_model_that_is_slower_than_its_period_misses_every_call():
    """A round is a few calls, none of which need be a period late: in an app the delay grows without end."""
    closed = measure()
    slow = [p.but(calls=50, missed=0, mean_us=115_000.0) for p in closed.processes]
    late = closed.but(plan=MeasurePlan(load=Load(pattern="periodic", rate_hz=10.0)), processes=slow)
    assert figure_of(late, "load.missed").value == 1.0


def test_the_sentinel_of_a_periodic_load_is_called_back_to_back():
    plan = MeasurePlan(processes=5, rounds=10, load=Load(pattern="periodic", rate_hz=0.5))
    alone = plan.but(sentinel=False).nominal_s
    assert alone >= 5 * 10 * 10.0
    assert plan.nominal_s - alone == pytest.approx(plan.but(load=Load(), sentinel=False).nominal_s)


def test_values_are_medians_inside_their_interval():
    measurement = measure()
    p95 = figure_of(measurement, "latency.p95")
    assert p95.value == pytest.approx(np.median([p.p95_us for p in measurement.processes]))
    assert p95.lower <= min(p.p95_us for p in measurement.processes)
    assert p95.upper >= max(p.p95_us for p in measurement.processes)
    assert figure_of(measurement, "latency.load").value == pytest.approx(5000.0)
    assert figure_of(measurement, "memory.model").low == figure_of(measurement, "memory.model").high


def test_kind_is_never_upgraded():
    measurement = measure(kind=EvidenceKind.EMULATED)
    assert {figure.kind for figure in figures_of(measurement)} == {EvidenceKind.EMULATED}


def test_a_failure_has_no_timed_figure():
    measurement = measure(outcomes={"m": Outcome.CRASHED})
    assert [figure.metric for figure in figures_of(measurement, size_bytes=5000)] == ["size.file"]
    with pytest.raises(KeyError, match="crashed"):
        figure_of(measurement, "latency.p50")


def test_where_operators_run_is_a_figure_only_where_a_target_limits_it():
    fields = {"name": "t", "device": "d", "backends": ["litert/xnnpack"]}
    full = Target.model_validate({**fields, "delegation": "full"})
    partly = measure().but(delegation=Delegation(total=4, delegated=3, partitions=1))

    def share(target, measurement):
        found = {figure.metric: figure for figure in figures_for_limits(target, measurement, None)}
        return found.get("delegation")

    assert share(Target.model_validate(fields), partly) is None
    assert (share(full, partly).value, share(full, partly).kind) == (0.75, EvidenceKind.MEASURED)
    assert share(full, measure()) is None  # LiteRT has delegates, and this one does not say
    elsewhere = measure().but(backend=Backend(runtime="onnxruntime", provider="cpu"))
    assert (share(full, elsewhere).value, share(full, elsewhere).kind) == (1.0, EvidenceKind.ANALYTIC)
    assert share(full, measure().but(backend=Backend(runtime="nobody", provider="knows"))) is None
    (estimate,) = FakeDevice({"m": 100.0}, kind=EvidenceKind.SIMULATED).open().measure([JOB], MeasurePlan())
    assert share(full, estimate.but(backend=elsewhere.backend)) is None  # nothing ran


def test_what_was_left_out_is_in_the_method():
    figure = figure_of(measure().but(disturbed=2), "latency.p50")
    assert "2 left out: the sentinel was slow in them too" in figure.method


def test_the_steps_of_a_meter_are_in_the_interval_of_what_it_reported():
    """Five processes that reported the very same power are no surer than the meter's step."""
    device = FakeDevice({"m": 100.0}, outcomes={"m": Script(joules=0.04)})
    (reported,) = device.open().measure([JOB], MeasurePlan(energy=True))
    assert (figure_of(reported, "energy.per_inference").low, figure_of(reported, "power.idle").high) == (0.04, 1.0)
    coarse = reported.but(energy=[sample.but(unsure_w=0.1) for sample in reported.energy])  # 100 calls in 2 s
    for metric, value, half in (
        ("energy.per_inference", 0.04, 2 * 0.1 * 0.02),
        ("power.average", 3.0, 0.1),
        ("power.idle", 1.0, 0.1),
    ):
        figure = figure_of(coarse, metric)
        assert (figure.value, figure.low, figure.high) == pytest.approx((value, value - half, value + half))
    lost = coarse.but(energy=[sample.but(joules=0.001) for sample in coarse.energy])
    assert figure_of(lost, "energy.per_inference").low == 0.0
