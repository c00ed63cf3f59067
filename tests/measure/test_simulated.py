"""A measurement is processes that ran or an estimate: each gives its figures, and neither passes for the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import Job, Measurement, MeasurePlan, Sampled, Simulated
from edgekd.evidence import EvidenceKind
from edgekd.measure.benches.bench import run_bench
from edgekd.measure.benches.text import bench_lines, bench_markdown
from edgekd.measure.compare import compare, order, p5_us
from edgekd.measure.doctor import examine
from edgekd.measure.figures import figure_of, figures_of
from edgekd.measure.sequential import measure_until
from edgekd.targets.target import Target
from edgekd.targets.verdict import judge
from edgekd.testing.fakes.device import FakeDevice, Script

LITERT = Backend.model_validate("litert/xnnpack")
PLAN = MeasurePlan(processes=4, rounds=2)
LATENCY_US = {"slow": 300.0, "fast": 100.0, "alike": 100.0}


def simulator() -> FakeDevice:
    return FakeDevice(LATENCY_US, kind=EvidenceKind.SIMULATED, name="npu")


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    found = []
    for name in LATENCY_US:
        (tmp_path / f"{name}.tflite").write_bytes(b"\0\0\0\0TFL3" + name.encode())
        found.append(Job(artefact=Artefact.of(tmp_path / f"{name}.tflite"), backend=LITERT))
    return found


@pytest.fixture
def estimates(jobs: list[Job]) -> list[Measurement]:
    return list(simulator().open().measure(jobs, PLAN))


@pytest.fixture
def measured(jobs: list[Job]) -> Measurement:
    return FakeDevice(LATENCY_US, name="npu").open().measure(jobs[:1], PLAN)[0]


def test_memory_is_the_processes_median_or_the_estimate(jobs: list[Job], estimates: list[Measurement]) -> None:
    assert estimates[0].memory_bytes == 2 * jobs[0].artefact.size_bytes
    (result,) = FakeDevice(LATENCY_US, outcomes={"slow": Script(memory_model_bytes=700)}).open().measure(jobs[:1], PLAN)
    assert result.memory_bytes == 700
    assert result.but(processes=[one.but(memory_model_bytes=None) for one in result.processes]).memory_bytes is None
    assert estimates[0].but(simulated=Simulated(compiler="c", version="1", seconds=1.0)).memory_bytes is None


@pytest.mark.parametrize(
    ("times", "latency_us"),
    [({"cycles": 5000, "clock_mhz": 250.0}, 20.0), ({"seconds": 2e-5}, 20.0)],
    ids=["cycles", "seconds"],
)
def test_an_estimate_is_in_cycles_or_in_seconds(times: dict[str, float], latency_us: float) -> None:
    assert Simulated(compiler="c", version="1", **times).latency_us == pytest.approx(latency_us)


@pytest.mark.parametrize(
    "times", [{}, {"cycles": 5}, {"clock_mhz": 5.0}, {"cycles": 5, "clock_mhz": 5.0, "seconds": 1.0}]
)
def test_it_is_in_one_of_them(times: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="expected `cycles` with `clock_mhz`, or `seconds`"):
        Simulated(compiler="c", version="1", **times)


def test_neither_kind_of_evidence_passes_for_the_other(estimates: list[Measurement], measured: Measurement) -> None:
    assert isinstance(estimates[0].taken, Simulated)
    assert isinstance(measured.taken, Sampled)
    for wrong in (
        {"kind": EvidenceKind.MEASURED},
        {"kind": EvidenceKind.EMULATED},
        {"processes": measured.processes},
    ):
        with pytest.raises(ValidationError, match="is of kind `simulated`, and has no processes"):
            estimates[0].but(**wrong)
    with pytest.raises(ValidationError, match="never of kind `simulated`"):
        measured.but(kind=EvidenceKind.SIMULATED)


def test_records_of_processes_are_as_they_were(estimates: list[Measurement], measured: Measurement) -> None:
    assert "simulated" not in measured.model_dump(mode="json")
    written = estimates[0].model_dump(mode="json")
    assert Measurement.model_validate(written) == estimates[0]
    assert written["simulated"]["compiler"] == "paper-compiler"


def test_every_figure_says_that_it_is_simulated_by_whom_and_exact(estimates: list[Measurement]) -> None:
    figures = figures_of(estimates[0])
    assert {figure.kind for figure in figures} == {EvidenceKind.SIMULATED}
    assert all("paper-compiler 1.0" in figure.method and "nothing ran" in figure.method for figure in figures)
    assert all((figure.low, figure.high, figure.confidence) == (None, None, None) for figure in figures)
    by_metric = {figure.metric: figure.value for figure in figures}
    assert by_metric["latency.p5"] == by_metric["latency.p99"] == pytest.approx(300.0)
    assert by_metric["throughput"] == pytest.approx(1e6 / 300)
    assert by_metric["memory.model"] == 2 * (8 + len("slow"))
    assert not {"latency.first", "latency.load", "memory.process"} & set(by_metric)  # nothing was started
    assert str(figure_of(estimates[0], "latency.p95")) == "300 us (simulated)"


def test_a_limit_is_held_against_the_estimate(estimates: list[Measurement]) -> None:
    target = Target.model_validate(
        {"name": "t", "device": "npu", "backends": ["litert/xnnpack"], "budgets": {"latency": {"p95": "200 us"}}}
    )
    assert [judge(target, figures_of(one)).answer.value for one in estimates] == ["fails", "holds", "holds"]


def test_estimates_are_ranked_without_noise(estimates: list[Measurement]) -> None:
    assert order(estimates, 0.5) == (3, 1, 1)
    result = compare(estimates[0], estimates[1], noise=0.5)
    assert (result.ratio, result.low, result.high) == (pytest.approx(3.0), pytest.approx(3.0), pytest.approx(3.0))
    assert result.distinguishable
    assert not compare(estimates[1], estimates[2]).distinguishable


def test_an_estimate_is_never_told_from_a_measurement(estimates: list[Measurement], measured: Measurement) -> None:
    for one, other in ((estimates[1], measured), (measured, estimates[1])):
        assert not compare(one, other).distinguishable
    another = estimates[1].but(fingerprint="0" * 64)  # by another version of the compiler
    assert not compare(estimates[0], another).distinguishable


def test_one_estimate_is_enough(jobs: list[Job]) -> None:
    device = simulator()
    found = measure_until(device.open(), jobs, PLAN, lambda _: True, limit=40)
    assert device.batches == 1
    assert [p5_us(one) for one in found] == pytest.approx([300.0, 100.0, 100.0])


@pytest.mark.parametrize("lines", [bench_lines, bench_markdown])
def test_a_bench_says_that_nothing_ran(jobs: list[Job], lines: Callable[..., list[str]]) -> None:
    report = run_bench([job.artefact.path for job in jobs], simulator(), [LITERT], None, PLAN)
    text = " ".join(" ".join(lines(report)).split())
    assert report.exit_code == 0
    assert "one estimate each, by paper-compiler 1.0; nothing ran . simulated" in text
    assert "Estimates have no noise: the order is by the estimate." in text
    assert "processes each" not in text
    assert {row.order for row in report.rows} == {1, 3}


def test_doctor_says_what_it_can_and_takes_no_noise() -> None:
    report = examine(simulator(), lambda: [])
    figures = next(check for check in report.checks if check.name == "figures")
    assert (figures.state, figures.found) == ("warn", "simulated, by paper-compiler 1.0")
    assert not {"noise", "power", "governor"} & {check.name for check in report.checks}
