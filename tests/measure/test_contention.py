"""A machine whose cores are shared by somebody else for seconds at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Job, Load, Measurement, MeasurePlan, Outcome, SentinelReading
from edgekd.errors import Interrupted
from edgekd.measure.contention import DriftBaseline, measure_uncontended, uncontended_processes
from edgekd.measure.disturbed_processes import without_disturbed
from edgekd.measure.figures import figure_of
from edgekd.testing.fakes import FakeDevice

JOB = Job(
    artefact=Artefact(path=Path("m.tflite"), format=Format.TFLITE, sha256="1" * 64, size_bytes=5000),
    backend=Backend(runtime="litert", provider="xnnpack"),
)
ROUNDS = 5


def measured(slow_rounds: list[int]) -> Measurement:
    """A process for each number: in so many of its five rounds everything took half as long again."""
    plan = MeasurePlan(processes=len(slow_rounds), rounds=ROUNDS)
    plain = FakeDevice({"m": 100.0}).open().measure([JOB], plan)[0]
    processes = tuple(
        process.but(p5_us=(150.0 if slow == ROUNDS else 100.0) + place)
        for place, (process, slow) in enumerate(zip(plain.processes, slow_rounds, strict=True))
    )
    readings = [reading for slow in slow_rounds for reading in [10.0] * (ROUNDS - slow) + [15.0] * slow]
    return plain.but(processes=processes, sentinel=SentinelReading(p5_us=tuple(readings), drift=0.0))


def test_on_a_quiet_machine_all_are():
    measurement = measured([0, 0, 0, 0])
    assert uncontended_processes(measurement) == measurement.processes
    assert "over 4 fresh processes of" in figure_of(measurement, "latency.p5").method


@pytest.mark.parametrize(("slow_rounds", "calm"), [([5, 0, 5], [1]), ([4, 5, 3, 0], [0, 2, 3]), ([4, 5, 5], [0])])
def test_of_a_disturbed_batch_those_that_came_near_its_fastest(slow_rounds, calm):
    measurement = measured(slow_rounds)
    assert uncontended_processes(measurement) == tuple(measurement.processes[place] for place in calm)


def test_of_a_machine_that_is_busy_on_purpose_every_process_counts():
    measurement = measured([5, 0, 5])
    busy = measurement.but(plan=measurement.plan.but(load=Load(busy=1)))
    assert uncontended_processes(busy) == busy.processes
    assert without_disturbed([busy]) == [busy]
    assert without_disturbed([measurement.but(plan=busy.plan.but(load=Load()))])[0] == measurement


def test_on_a_quiet_machine_a_slow_process_is_the_models_own():
    measurement = measured([0, 0, 0])
    slow = measurement.processes[1].but(p5_us=150.0)
    measurement = measurement.but(processes=(measurement.processes[0], slow, measurement.processes[2]))
    assert uncontended_processes(measurement) == measurement.processes


def test_the_ranking_quantile_is_theirs_and_the_budgets_figures_are_of_all():
    measurement = measured([5, 0, 5])
    low, p95 = figure_of(measurement, "latency.p5"), figure_of(measurement, "latency.p95")
    assert low.value == 101.0
    assert "1 of 3 fresh processes, the least disturbed by what the sentinel says, of the" in low.method
    assert p95.value == np.median([process.p95_us for process in measurement.processes])


def test_without_a_sentinel_beside_each_nothing_is_left_out():
    measurement = measured([5, 0, 5])
    assert uncontended_processes(measurement.but(sentinel=None)) == measurement.processes
    odd = SentinelReading(p5_us=(10.0, 15.0), drift=0.0)
    assert uncontended_processes(measurement.but(sentinel=odd)) == measurement.processes


class Moody:
    """A session whose every job takes half as long again in the batches that are said to be slow."""

    def __init__(self, slow: list[bool]) -> None:
        self.slow, self.asked = slow, list[int]()

    def measure(self, jobs, plan, progress=None):
        self.asked.append(len(jobs))
        (slow, *self.slow) = self.slow
        return [measured([ROUNDS if slow else 0] * 3).but(plan=plan.but(rounds=ROUNDS))] * len(jobs)


@pytest.mark.parametrize(
    ("slow", "batches", "p5_us"),
    [
        ([False], 1, 101.0),
        ([True, False], 2, 101.0),
        ([True, True, True, False], 4, 101.0),
        ([True, True, True, True], 4, 151.0),
    ],
)
def test_a_batch_that_was_slow_from_end_to_end_is_measured_again(slow, batches, p5_us):
    session, drift_baseline = Moody(slow), DriftBaseline([measured([0, 0, 0])])
    found = measure_uncontended(session, [JOB, JOB], MeasurePlan(processes=3, rounds=ROUNDS), drift_baseline)
    assert session.asked == [2] * batches
    assert [figure_of(one, "latency.p5").value for one in found] == [p5_us, p5_us]


def test_the_first_batch_of_all_knows_no_better_pace():
    session = Moody([True])
    measure_uncontended(session, [JOB], MeasurePlan(processes=3, rounds=ROUNDS), DriftBaseline())
    assert session.asked == [1]


def test_whoever_asks_to_stop_is_heard_before_another_batch():
    def stop():
        raise Interrupted("stopped", "again")

    with pytest.raises(Interrupted):
        measure_uncontended(Moody([True]), [JOB], MeasurePlan(processes=3), DriftBaseline([measured([0])]), None, stop)


def test_a_device_that_stays_slow_is_not_waited_for_for_ever():
    session, drift_baseline = Moody([True] * 6), DriftBaseline([measured([0, 0, 0])])
    plan = MeasurePlan(processes=3, rounds=ROUNDS)
    for _ in range(2):
        measure_uncontended(session, [JOB], plan, drift_baseline)
    assert session.asked == [1] * 5  # four for the first batch, and then it is known to be slower


@pytest.mark.parametrize(("crashes", "batches"), [([False, True, True, True], 4), ([True], 1)])
def test_a_crash_is_not_repeated_and_replaces_no_measurement(crashes, batches):

    class Crashing(Moody):
        def measure(self, jobs, plan, progress=None):
            found = super().measure(jobs, plan, progress)
            if not crashes[len(self.asked) - 1]:
                return found
            return [one.but(outcome=Outcome.CRASHED, processes=()) for one in found]

    session = Crashing([True] * batches)
    plan = MeasurePlan(processes=3, rounds=ROUNDS)
    found = measure_uncontended(session, [JOB], plan, DriftBaseline([measured([0, 0, 0])]))
    assert (found[0].outcome is Outcome.CRASHED, session.asked) == (crashes[0], [1] * batches)
