"""The promises of a device that only simulates, as tests: subclass `SimulatorContract`, override its fixtures.

- opening takes it for itself, and a closed session says so;
- its fingerprint names the compiler and its version, which change every figure;
- every figure is `simulated`, and the same whenever it is asked, whatever the plan says of processes;
- the larger of two models takes longer: the estimate is of the file's own operators;
- a file that can't be compiled is refused with a reason, and the others of its batch have their figures;
- nothing runs: samples are refused in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import Device, DeviceSession, Job, MeasurePlan, Outcome, Simulated
from edgekd.errors import DeviceBusy, DeviceUnreachable, MissingError
from edgekd.evidence import EvidenceKind
from edgekd.ir.backends import BACKENDS, formats_of
from edgekd.measure.figures import figures_of

__all__ = ["SimulatorContract"]

_PLAN = MeasurePlan(processes=2, rounds=3)


class SimulatorContract:
    """Tests every device has to pass whose figures are a compiler's estimates."""

    @pytest.fixture
    def make_device(self) -> Callable[[], Device]:
        """A factory of devices that are one. Must be overridden."""
        raise NotImplementedError("override the fixture `make_device` with a factory of your device")

    @pytest.fixture
    def backend(self) -> Backend:
        """Backend that it estimates for. Must be overridden."""
        raise NotImplementedError("override the fixture `backend` with a backend of your device")

    @pytest.fixture
    def models(self, tmp_path: Path) -> tuple[Path, Path]:
        """A small model file and a larger one. Must be overridden."""
        raise NotImplementedError("override the fixture `models` with a small and a larger model file")

    @pytest.fixture
    def jobs(self, backend: Backend, models: tuple[Path, Path]) -> tuple[Job, Job]:
        """The small one and the larger one."""
        small, large = (Job(artefact=Artefact.of(path), backend=backend) for path in models)
        return small, large

    @pytest.fixture
    def broken(self, backend: Backend, tmp_path: Path) -> Job:
        """A file that is no model."""
        path = tmp_path / f"broken{formats_of(backend)[0].suffix}"
        path.write_bytes(b"no model")
        return Job(artefact=Artefact.of(path), backend=backend)

    @pytest.fixture
    def session(self, make_device: Callable[[], Device]) -> Iterator[DeviceSession]:
        """The device, open."""
        opened = make_device().open()
        yield opened
        opened.close()

    def test_its_backend_says_that_it_simulates(self, backend: Backend) -> None:
        assert BACKENDS[str(backend)].can.isdisjoint({"execute", "measure"})
        assert "simulate" in BACKENDS[str(backend)].can

    def test_one_at_a_time(self, make_device: Callable[[], Device]) -> None:
        first = make_device().open()
        try:
            with pytest.raises(DeviceBusy, match="in use"):
                make_device().open()
        finally:
            first.close()
        make_device().open().close()

    def test_its_fingerprint_names_the_compiler(self, session: DeviceSession, backend: Backend) -> None:
        found = session.describe()
        assert found.simulates
        assert found.digest() == session.describe().digest()
        assert found.digest() != found.but(simulator=f"{found.simulator}, another version").digest()
        assert backend.provider in found.providers[backend.runtime]

    def test_every_figure_is_simulated(self, session: DeviceSession, jobs: tuple[Job, Job]) -> None:
        found = session.describe()
        for job, result in zip(jobs, session.measure(jobs, _PLAN), strict=True):
            assert (result.sha256, result.backend) == (job.artefact.sha256, job.backend)
            assert (result.outcome, result.kind) == (Outcome.OK, EvidenceKind.SIMULATED)
            assert isinstance(result.taken, Simulated)
            assert str(result.taken) == found.simulator
            assert result.fingerprint == found.digest(job.backend)
            assert {figure.kind for figure in figures_of(result)} == {EvidenceKind.SIMULATED}

    def test_an_estimate_is_always_the_same(self, make_device: Callable[[], Device], jobs: tuple[Job, Job]) -> None:
        found = []
        for processes in (1, 7):
            session = make_device().open()
            found.append([one.simulated for one in session.measure(jobs, _PLAN.but(processes=processes))])
            session.close()
        assert found[0] == found[1]

    def test_the_larger_model_takes_longer(self, session: DeviceSession, jobs: tuple[Job, Job]) -> None:
        small, large = (one.simulated for one in session.measure(jobs, _PLAN))
        assert small is not None
        assert large is not None
        assert small.latency_us < large.latency_us

    def test_what_cannot_be_compiled_says_why(self, session: DeviceSession, jobs: tuple[Job, Job], broken: Job) -> None:
        bad, good = session.measure([broken, jobs[0]], _PLAN)
        assert (bad.outcome, good.outcome) == (Outcome.REFUSED, Outcome.OK)
        assert bad.detail
        answers = session.prepare([jobs[0], broken])
        assert answers[jobs[0]] is None
        assert answers[broken] is not None

    def test_progress_ends_complete(self, session: DeviceSession, jobs: tuple[Job, Job]) -> None:
        heard: list[tuple[int, int]] = []
        session.measure(jobs, _PLAN, lambda _, done, total: heard.append((done, total)))
        assert heard[-1][0] == heard[-1][1]

    def test_nothing_runs(self, session: DeviceSession, jobs: tuple[Job, Job], tmp_path: Path) -> None:
        with pytest.raises(MissingError):
            session.run(jobs[0], [tmp_path / "x.npy"])

    def test_closed_is_closed(self, make_device: Callable[[], Device], jobs: tuple[Job, Job]) -> None:
        session = make_device().open()
        session.close()
        session.close()
        with pytest.raises(DeviceUnreachable, match="closed"):
            session.measure(jobs, _PLAN)
