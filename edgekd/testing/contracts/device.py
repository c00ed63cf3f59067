"""The promises of a device, as tests: subclass `DeviceContract` and override `make_device`.

- opening takes the device for itself: a second opening is refused, naming who holds it, until the first is closed;
- it describes itself the same each time it is asked;
- a batch answers every job, in order, whatever becomes of one of them: crash, hang, refusal;
- a good job has one sample a process, with ordered quantiles, and the sentinel's readings beside it;
- answers to samples come back, one row a sample;
- closing twice does no harm, and a closed session says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekd.devices._protocol import Device, DeviceSession, Job, MeasurePlan, Outcome
from edgekd.devices.diagnostic import null_job
from edgekd.errors import DeviceBusy, DeviceUnreachable

__all__ = ["DeviceContract"]

_PLAN = MeasurePlan(processes=2, rounds=3, round_ms=2.0, warmup_ms=2.0, load_deadline_s=30.0, call_deadline_s=10.0)

MakeJob = Callable[[str], Job]


class DeviceContract:
    """Tests every device has to pass."""

    @pytest.fixture
    def make_device(self) -> Callable[[], Device]:
        """A factory of devices that all reach the same hardware. Must be overridden."""
        raise NotImplementedError("override the fixture `make_device` with a factory of your device")

    @pytest.fixture
    def make_job(self, tmp_path: Path) -> MakeJob:
        """A job that behaves as told. Override it where the null runtime isn't there."""
        return lambda behaviour: null_job(tmp_path, behaviour)

    @pytest.fixture
    def session(self, make_device: Callable[[], Device]) -> Iterator[DeviceSession]:
        """The device, open."""
        opened = make_device().open()
        yield opened
        opened.close()

    def test_one_at_a_time(self, make_device: Callable[[], Device]) -> None:
        first = make_device().open()
        try:
            with pytest.raises(DeviceBusy, match="in use"):
                make_device().open()
        finally:
            first.close()
        make_device().open().close()

    def test_describes_itself_the_same_each_time(self, session: DeviceSession) -> None:
        first = session.describe()
        assert first.digest() == session.describe().digest()
        assert first.cpu
        assert first.cores >= 1
        assert first.memory_bytes > 0
        assert set(first.providers) == set(first.runtimes)

    def test_prepare_says_why_not(self, session: DeviceSession, make_job: MakeJob) -> None:
        good, bad = make_job(""), make_job("refuse")
        answers = session.prepare([good, bad, good])
        assert set(answers) == {good, bad}
        assert answers[good] is None
        assert "refuse" in str(answers[bad])

    def test_every_job_is_answered_in_order(self, session: DeviceSession, make_job: MakeJob) -> None:
        jobs = [make_job(how) for how in ("spin=50", "crash", "", "refuse", "spin=100")]
        results = session.measure(jobs, _PLAN)
        assert [result.sha256 for result in results] == [job.artefact.sha256 for job in jobs]
        expected = [Outcome.OK, Outcome.CRASHED, Outcome.OK, Outcome.REFUSED, Outcome.OK]
        assert [result.outcome for result in results] == expected
        assert "SIGSEGV" in results[1].detail
        for result in results:
            assert len(result.processes) == (_PLAN.processes if result.outcome is Outcome.OK else 0)
            assert bool(result.detail) == (result.outcome is not Outcome.OK)
            assert result.fingerprint == session.describe().digest(result.backend)
            assert result.plan == _PLAN

    def test_samples_are_ordered_and_complete(self, session: DeviceSession, make_job: MakeJob) -> None:
        (result,) = session.measure([make_job("spin=50")], _PLAN)
        assert result.sentinel is not None
        assert len(result.sentinel.p5_us) == _PLAN.processes * _PLAN.rounds
        assert result.sentinel.drift >= 0
        for sample in result.processes:
            assert 50 <= sample.min_us <= sample.p5_us <= sample.p50_us <= sample.p95_us
            assert sample.p99_us is None or sample.p95_us <= sample.p99_us
            assert len(sample.round_p5_us) == _PLAN.rounds
            assert sample.calls >= _PLAN.rounds * _PLAN.min_calls
            if sample.memory_model_bytes is not None and sample.memory_process_bytes is not None:
                assert sample.memory_process_bytes > sample.memory_model_bytes >= 0

    def test_a_hang_is_killed(self, session: DeviceSession, make_job: MakeJob) -> None:
        hung, good = session.measure([make_job("hang"), make_job("")], _PLAN.but(processes=1, call_deadline_s=2.0))
        assert hung.outcome is Outcome.HUNG
        assert "2 s" in hung.detail
        assert good.outcome is Outcome.OK

    def test_want_of_memory_has_its_own_name(self, session: DeviceSession, make_job: MakeJob) -> None:
        plan = _PLAN.but(processes=1, memory_limit_bytes=64 * 1024**2)
        hungry, modest = session.measure([make_job("alloc=200000000"), make_job("alloc=1000000")], plan)
        assert hungry.outcome is Outcome.OUT_OF_MEMORY
        assert modest.outcome is Outcome.OK

    def test_progress_ends_complete(self, session: DeviceSession, make_job: MakeJob) -> None:
        heard: list[tuple[int, int]] = []
        session.measure([make_job(""), make_job("")], _PLAN, lambda _, done, total: heard.append((done, total)))
        assert heard[-1][0] == heard[-1][1]
        assert [done for done, _ in heard] == sorted(done for done, _ in heard)

    def test_runs_every_sample(self, session: DeviceSession, make_job: MakeJob, tmp_path: Path) -> None:
        samples = np.arange(5, dtype=np.float32)[:, None]
        np.save(tmp_path / "x.npy", samples)
        result = session.run(make_job(""), [tmp_path / "x.npy"])
        assert result.outcome is Outcome.OK
        np.testing.assert_array_equal(np.load(result.outputs[0]), samples)

    def test_run_refuses_samples_of_another_shape(
        self, session: DeviceSession, make_job: MakeJob, tmp_path: Path
    ) -> None:
        np.save(tmp_path / "x.npy", np.zeros((2,), np.float32))
        result = session.run(make_job(""), [tmp_path / "x.npy"])
        assert result.outcome is Outcome.REFUSED
        assert "should be float32" in result.detail

    def test_closed_is_closed(self, make_device: Callable[[], Device], make_job: MakeJob) -> None:
        session = make_device().open()
        session.close()
        session.close()
        with pytest.raises(DeviceUnreachable, match="closed"):
            session.measure([make_job("")], _PLAN)
