"""A device that only simulates: candidates are ranked and reported by its estimates, and none is certified."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from edgekd.devices._protocol import Fingerprint
from edgekd.errors import MissingError
from edgekd.events import SilentEvents
from edgekd.evidence import EvidenceKind
from edgekd.report.page import write_report
from edgekd.search.budget import Budget
from edgekd.search.finalists.selection import FinalistSelection
from edgekd.search.finalists.stagewise import Stagewise
from edgekd.search.replay import replay
from edgekd.search.requirements import require_running, require_runtimes, simulation_caution
from edgekd.testing.fakes.device import FakeDevice, fake_fingerprint
from tests.search.conftest import Lab

SIMULATOR = fake_fingerprint(simulator="paper-compiler 1.0")


class SimulatedLab(Lab):
    """The paper search, where latencies are a compiler's."""

    def device(self) -> FakeDevice:
        return FakeDevice(self.latency, kind=EvidenceKind.SIMULATED, clock=self.clock)


def test_a_search_ranks_and_refuses_the_certificate(tmp_path: Path) -> None:
    lab = SimulatedLab(tmp_path / "run", trials=8)
    outcome = lab.search()
    run = lab.open()
    best = max(run.finalists(), key=lambda one: one.accuracy.value if one.accuracy else 0)
    assert (outcome.exit_code, outcome.chosen) == (MissingError.exit_code, None)
    assert outcome.summary == (
        "not certified: every figure of fake-device is simulated, and a certificate needs measured ones"
    )
    assert outcome.detail[0].startswith(f"best by paper-compiler 1.0's estimates: {best.candidate}")
    assert "(simulated)" in outcome.detail[0]
    assert any("name a device that runs models" in line for line in outcome.detail)
    assert not any(finalist.chosen or finalist.measurement for finalist in run.finalists())
    records = [*run.trials(), *run.finalists()]
    figures = [figure for one in records for figure in one.figures if figure.metric.startswith("latency")]
    assert len(run.trials()) == 8
    assert {figure.kind for figure in figures} == {EvidenceKind.SIMULATED}
    assert run.stages_record() is None


def test_a_finalist_that_is_only_estimated_the_second_time_is_not_chosen(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "run", trials=8)
    assert lab.search().chosen is not None
    run = lab.open()
    for finalist in run.finalists():
        run.write(finalist.but(measurement=None, chosen=False))
    session = FakeDevice(lab.latency, kind=EvidenceKind.SIMULATED, clock=lab.clock).open()
    budget = Budget(None, lab.clock, 0.0)
    assert FinalistSelection(run, lab.plan.certify, session, cast(Any, lab), SilentEvents(), budget).certify() is None
    tried = [finalist for finalist in run.finalists() if finalist.measurement is not None]
    assert tried
    assert not any(finalist.chosen for finalist in tried)
    assert {finalist.reason for finalist in tried} == {
        "measured anew by an estimate of paper-compiler 1.0: a certificate needs measured figures"
    }


def test_its_records_decide_the_same_again_and_resume_does_nothing_twice(tmp_path: Path) -> None:
    lab = SimulatedLab(tmp_path / "run", trials=8)
    first = lab.search()
    made = len(lab.made)
    assert lab.search() == first
    assert len(lab.made) == made
    assert replay(lab.open()).same


def test_the_report_says_that_figures_are_simulated(tmp_path: Path) -> None:
    lab = SimulatedLab(tmp_path / "run", trials=8)
    lab.search()
    page = write_report(lab.folder).read_text()
    assert "not certified: every figure of fake-device is simulated" in page
    assert "(simulated)" in page
    assert "Certified" not in page


def test_stages_are_not_scored_where_nothing_runs(tmp_path: Path) -> None:
    lab = SimulatedLab(tmp_path / "run", trials=8)
    lab.search()
    run, made = lab.open(), len(lab.made)
    budget = Budget(None, lab.clock, 0.0)
    stagewise = Stagewise(run, lab.plan.measure, lab.device().open(), cast(Any, lab), lab, budget)
    assert stagewise(run.finalists()[0]) is None
    assert run.stages_record() is None
    assert len(lab.made) == made


def test_what_needs_answers_is_refused_before_it_begins() -> None:
    target = SimulatedLab(Path("none")).target
    require_runtimes(target, SIMULATOR)
    assert "ranked and reported by its estimates" in simulation_caution(target, SIMULATOR)
    assert simulation_caution(target, fake_fingerprint()) == ""
    require_running(target, fake_fingerprint())
    with pytest.raises(MissingError, match=r"fake-device runs nothing: paper-compiler 1\.0 estimates"):
        require_running(target, SIMULATOR)


def test_the_simulator_is_a_part_of_the_identity() -> None:
    assert SIMULATOR.digest() != fake_fingerprint().digest()
    assert fake_fingerprint(simulator="paper-compiler 1.1").digest() != SIMULATOR.digest()
    assert "simulator" not in Fingerprint.model_dump(fake_fingerprint())
    assert not SIMULATOR.but(python="none").times_only
