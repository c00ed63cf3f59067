"""Measuring until decided, on the fake device."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Job, MeasurePlan, Outcome, SentinelReading
from edgekd.errors import Interrupted
from edgekd.measure import sequential
from edgekd.measure.disturbed_processes import disturbed, without_disturbed
from edgekd.measure.sentinel import is_unstable, moved_by, moved_too_far
from edgekd.measure.sequential import measure_stable, measure_until, merge
from edgekd.testing.fakes import FakeDevice, TimingNoise

PLAN = MeasurePlan(processes=5)


def job(name):
    artefact = Artefact(path=Path(f"{name}.tflite"), format=Format.TFLITE, sha256=f"{name:0>64}", size_bytes=1000)
    return Job(artefact=artefact, backend=Backend(runtime="litert", provider="xnnpack"))


def test_processes_are_added_until_decided_or_the_limit():
    device = FakeDevice({"a": 100.0, "b": 120.0})
    session, jobs = device.open(), [job("a"), job("b")]
    enough = measure_until(session, jobs, PLAN, lambda known: len(known[0].processes) >= 12, limit=100)
    assert [len(m.processes) for m in enough] == [15, 15]
    assert enough[0].plan.processes == 15
    assert len({p.p5_us for p in enough[0].processes}) == 15  # no batch was drawn twice
    never = measure_until(session, jobs, PLAN, lambda known: False, limit=12)
    assert [len(m.processes) for m in never] == [12, 12]
    once = measure_until(session, jobs, PLAN, lambda known: True, limit=12)
    assert [len(m.processes) for m in once] == [5, 5]


def test_every_batch_has_its_own_order_of_processes():
    device = FakeDevice({"a": 100.0}, noise=TimingNoise(low=0.0005, drift=1000.0))  # so that batches are repeated, too
    session, seeds = device.open(), []
    measure = session.measure
    session.measure = lambda jobs, plan, *rest: seeds.append(plan.seed) or measure(jobs, plan, *rest)
    measure_until(session, [job("a")], PLAN, lambda known: False, limit=15)
    assert len(seeds) == 9  # three batches, each tried three times
    assert len(set(seeds)) == 9


def test_what_failed_is_not_measured_again_and_keeps_its_outcome():
    device = FakeDevice({"a": 100.0, "b": 120.0}, outcomes={"b": Outcome.CRASHED})
    asked = []
    session = device.open()
    measure, session.measure = session.measure, lambda jobs, *rest: asked.append(len(jobs)) or measure(jobs, *rest)
    good, bad = measure_until(session, [job("a"), job("b")], PLAN, lambda known: False, limit=10)
    assert asked == [2, 1]
    assert (good.outcome, bad.outcome, len(good.processes), bad.processes) == (Outcome.OK, Outcome.CRASHED, 10, ())


def test_a_batch_in_which_the_machine_shifted_is_repeated():
    throttling = FakeDevice({"a": 100.0}, noise=TimingNoise(low=0.001, throttle_after_s=0.9, throttle_by=0.3))
    measured = measure_stable(throttling.open(), [job("a")], PLAN.but(processes=6))[0]
    assert throttling.batches == 2  # from the second batch on all of it was equally slow
    assert not moved_too_far(measured.sentinel, PLAN.rounds)


def test_a_job_that_fails_in_a_repetition_keeps_its_measurement():
    session = FakeDevice({"a": 100.0, "b": 100.0}).open()
    measure, batches = session.measure, []

    def hanging_later(*asked):
        good, other = measure(*asked)
        batches.append(other)
        if len(batches) > 1:
            return [good, other.but(outcome=Outcome.HUNG, processes=())]
        late = len(good.sentinel.p5_us) // 2
        moved = tuple(us * (1.2 if place >= late else 1.0) for place, us in enumerate(good.sentinel.p5_us))
        batches[0] = other.but(sentinel=other.sentinel.but(p5_us=moved))
        return [good.but(sentinel=batches[0].sentinel), batches[0]]

    session.measure = hanging_later
    good, kept = measure_stable(session, [job("a"), job("b")], PLAN.but(processes=6))
    assert len(batches) == 2
    assert kept == batches[0]
    assert (is_unstable(kept), is_unstable(good)) == (True, False)


def test_a_shift_beside_later_jobs_of_a_large_batch_counts_as_well():
    """Each group of a large batch has a sentinel of its own."""
    calm = FakeDevice({"a": 100.0, "b": 100.0})
    session = calm.open()
    measure, batches = session.measure, []

    def shifted_at_first(*asked):
        first, last = measure(*asked)
        batches.append(1)
        rounds, readings = PLAN.rounds, last.sentinel.p5_us
        late = len(readings) // rounds // 2 * rounds
        slow = tuple(us * (1.2 if place >= late and len(batches) == 1 else 1.0) for place, us in enumerate(readings))
        return [first, last.but(sentinel=last.sentinel.but(p5_us=slow))]

    session.measure = shifted_at_first
    _, b = measure_stable(session, [job("a"), job("b")], PLAN.but(processes=6))
    assert len(batches) == 2
    assert not moved_too_far(b.sentinel, PLAN.rounds)


def test_repeating_ends_with_the_calmest():
    slowing = FakeDevice({"a": 100.0}, noise=TimingNoise(low=0.0005, drift=400.0))
    measured = measure_stable(slowing.open(), [job("a")], PLAN.but(processes=8))[0]
    assert slowing.batches == 3
    assert moved_by(measured.sentinel, PLAN.rounds) > 0.01


@pytest.mark.parametrize(("processes", "low"), [(2, 0.007), (3, 0.007), (5, 0.003)])
def test_quiet_batches_are_hardly_ever_repeated(processes, low):
    device = FakeDevice({"a": 100.0, "b": 130.0}, noise=TimingNoise(low=low))
    session = device.open()
    for seed in range(100):
        measure_stable(session, [job("a"), job("b")], PLAN.but(processes=processes, seed=seed))
    assert device.batches <= 105


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_a_caller_can_tell_that_no_repetition_was_steady(processes):
    plan = PLAN.but(processes=processes)
    slowing = FakeDevice({"a": 100.0}, noise=TimingNoise(low=0.0005, drift=1000.0))
    measured = measure_stable(slowing.open(), [job("a")], plan)[0]
    assert slowing.batches == 3
    assert is_unstable(measured)
    calm = FakeDevice({"a": 100.0}, noise=TimingNoise(low=0.0005))
    assert not is_unstable(measure_stable(calm.open(), [job("a")], plan)[0])
    assert not is_unstable(calm_without_a_sentinel(plan))


def calm_without_a_sentinel(plan):
    return FakeDevice({"a": 100.0}).open().measure([job("a")], plan.but(sentinel=False))[0]


def test_stopping_is_asked_before_each_batch():
    device = FakeDevice({"a": 100.0})
    with pytest.raises(Interrupted) as stopped:
        measure_until(device.open(), [job("a")], PLAN, lambda known: False, 100, stop=lambda: device.batches == 2)
    assert device.batches == 2
    assert stopped.value.exit_code == 130
    slowing = FakeDevice({"a": 100.0}, noise=TimingNoise(low=0.0005, drift=1000.0))
    with pytest.raises(Interrupted):
        measure_stable(slowing.open(), [job("a")], PLAN, stop=lambda: slowing.batches == 1)
    assert slowing.batches == 1
    once = FakeDevice({"a": 100.0})
    decided = measure_until(once.open(), [job("a")], PLAN, lambda known: True, 100, stop=lambda: once.batches == 1)
    assert len(decided[0].processes) == 5  # what is decided is handed back, stop or not


def test_merging_keeps_order_and_refuses_strangers():
    device = FakeDevice({"a": 100.0, "b": 120.0})
    session = device.open()
    first, other = session.measure([job("a"), job("b")], PLAN)
    second = session.measure([job("a")], PLAN)[0]
    both = merge(first, second)
    assert both.processes == first.processes + second.processes
    assert both.sentinel.p5_us == first.sentinel.p5_us + second.sentinel.p5_us
    assert merge(first.but(operators_detail="crashed"), second).operators_detail == "crashed"  # only the first profiles
    with pytest.raises(ValueError, match="different jobs"):
        merge(first, other)
    with pytest.raises(ValueError, match="different jobs"):
        merge(first, second.but(shapes=(("x", (1, 3)),)))
    plugged = merge(first.but(state="on battery"), second.but(state="charging"))
    assert plugged.state == "on battery; charging"
    assert merge(plugged, second.but(state="charging")).state == plugged.state


def test_a_shift_is_of_levels_not_of_one_process():
    def moved(*levels):
        sentinel = SentinelReading(p5_us=tuple(level for level in levels for _ in range(3)), drift=0.0)
        return moved_by(sentinel, 3), moved_too_far(sentinel, 3)

    assert moved(50.0, 50.0, 80.0, 50.0, 50.0, 50.0) == (0.0, False)
    assert moved(50.0, 50.1, 50.0, 60.0, 60.1, 60.0) == (pytest.approx(0.2), True)
    assert moved(50.0, 51.0, 52.0, 53.0, 54.0)[1]
    assert not moved(50.0, 50.1, 50.2, 50.3, 50.4)[1]  # less than anybody could see
    assert moved(50.0, 50.01, 50.0, 50.6, 50.61, 50.6) == (pytest.approx(0.012), True)  # from 1 % on
    assert not moved(50.0, 50.01, 50.0, 50.4, 50.41, 50.4)[1]
    assert not moved_too_far(None, 3)


def test_two_or_three_processes_have_their_rounds_and_a_wider_bound():
    def moved(*rounds):
        sentinel = SentinelReading(p5_us=tuple(low for process in rounds for low in process), drift=0.0)
        return moved_by(sentinel, 3), moved_too_far(sentinel, 3)

    quiet, slow, noisy = (50.0, 50.1, 50.0), (53.0, 53.1, 53.0), (49.0, 53.0, 60.0)
    assert moved(quiet, quiet, slow) == (pytest.approx(0.06), True)
    assert moved(slow, quiet, quiet)[1]
    assert moved(quiet, slow) == (pytest.approx(0.06), True)
    assert moved(quiet, slow, quiet) == (0.0, False)  # one process, disturbed alone
    assert not moved(quiet, quiet, (51.0, 51.1, 51.0))[1]  # as far as identical processes may lie
    assert moved(quiet, quiet, noisy) == (pytest.approx(0.06), False)  # its own rounds differ by as much
    assert moved(slow) == (0.0, False)


@pytest.mark.parametrize("longest_s", [math.inf, 0.0])
def test_a_process_in_which_the_machine_was_disturbed_is_left_out_and_made_up_for(longest_s):
    device = FakeDevice({"a": 100.0}, noise=TimingNoise(low=0.001, body=0.0, tail=0.0))
    session = device.open()
    measure = session.measure

    def disturbed(jobs, plan, *rest):
        """The third process of the first batch is slow, and the sentinel in it."""
        (found,) = measure(jobs, plan, *rest)
        if device.batches == 1:
            slow = found.processes[2].but(p50_us=160.0)
            lows = found.sentinel.p5_us
            at = slice(2 * plan.rounds, 3 * plan.rounds)
            lows = (*lows[: at.start], *(1.2 * low for low in lows[at]), *lows[at.stop :])
            processes = (*found.processes[:2], slow, *found.processes[3:])
            found = found.but(processes=processes, sentinel=found.sentinel.but(p5_us=lows))
        return [found]

    session.measure = disturbed
    (found,) = measure_until(session, [job("a")], PLAN, lambda known: True, limit=20, longest_s=longest_s)
    assert (len(found.processes), found.plan.processes, found.disturbed) == (9, 9, 1)
    assert max(process.p50_us for process in found.processes) < 120.0
    assert len(found.sentinel.p5_us) == 9 * PLAN.rounds


def test_no_time_is_left_for_noise_and_one_batch_for_disturbed_processes(monkeypatch):
    device = FakeDevice({"a": 100.0}, noise=TimingNoise(low=0.001, body=0.0, tail=0.0))
    session = device.open()
    measure_until(session, [job("a")], PLAN, lambda known: False, limit=20, longest_s=0.0)
    undecided = device.batches
    monkeypatch.setattr(sequential, "_enough", lambda *_: False)
    measure_until(session, [job("a")], PLAN, lambda known: True, limit=20, longest_s=0.0)
    assert (undecided, device.batches - undecided) == (1, 2)


def test_a_model_that_is_slow_by_itself_is_not_called_disturbed():
    (found,) = FakeDevice({"a": 100.0}).open().measure([job("a")], PLAN)
    slow = found.but(processes=(found.processes[0].but(p50_us=900.0), *found.processes[1:]))
    assert without_disturbed([slow])[0] == slow
    assert disturbed(None, 10) == ()
    assert disturbed(SentinelReading(p5_us=(50.0, 90.0), drift=0.0), 1) == ()  # two can't say which is usual
