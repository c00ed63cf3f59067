"""Figures carry value, interval, unit, kind, subject and method."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Job, MeasurePlan, Outcome
from edgekd.evidence import EvidenceKind
from edgekd.measure.figures import figure_of, figures_of
from edgekd.testing.fakes import FakeDevice

JOB = Job(
    artefact=Artefact(path=Path("m.tflite"), format=Format.TFLITE, sha256="1" * 64, size_bytes=5000),
    backend=Backend(runtime="litert", provider="xnnpack"),
)


def measure(**options):
    return FakeDevice({"m": 100.0}, **options).open().measure([JOB], MeasurePlan())[0]


def test_every_metric_has_its_unit_and_subject():
    measurement = measure()
    figures = {figure.metric: figure for figure in figures_of(measurement, size_bytes=5000)}
    latencies = {f"latency.{part}" for part in ("low", "p50", "p95", "p99", "mean", "first", "load")}
    assert set(figures) == latencies | {"memory.model", "memory.process", "throughput", "size.file"}
    assert {figures[name].unit for name in latencies} == {"us"}
    assert figures["memory.model"].unit == figures["size.file"].unit == "B"
    assert figures["throughput"].unit == "/s"
    assert figures["latency.p95"].subject == measurement.fingerprint
    assert figures["size.file"].subject == measurement.sha256
    assert "median over 5 fresh processes of the per-process 95th percentile" in figures["latency.p95"].method


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
