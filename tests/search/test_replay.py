"""The same recorded facts give the same decisions, and a changed fact shows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.errors import ConfigurationError
from edgekd.search.replay import replay
from edgekd.store.run import Run

GOLDEN = Path(__file__).parents[1] / "store" / "golden"


@pytest.mark.slow
def test_every_decision_of_a_finished_run_is_reproduced(lab: Any) -> None:
    lab.search()
    report = replay(Run.open(lab.folder))
    assert report.same
    assert report.exit_code == 0
    counts = {step.name: step.decisions for step in report.steps}
    assert counts["proposals"] == 24
    assert min(counts.values()) >= 1


@pytest.mark.slow
def test_a_noisy_run_is_reproduced_too(make_lab: Callable[..., Any]) -> None:
    from edgekd.testing.fakes.device import TimingNoise

    lab = make_lab()
    lab.noise = TimingNoise(low=0.02, busy=0.2, body=0.1, tail=0.1)
    lab.search_through_stops(9)
    assert replay(Run.open(lab.folder)).lines()[0].endswith("decisions reproduced")


@pytest.mark.slow
def test_a_run_that_fits_nothing_is_reproduced(make_lab: Callable[..., Any]) -> None:
    lab = make_lab(target={"budgets": {"latency": {"p95": "20 us"}}})
    lab.search()
    assert replay(Run.open(lab.folder)).same


@pytest.mark.slow
def test_a_changed_proposal_shows(lab: Any) -> None:
    lab.search()
    run = Run.open(lab.folder)
    first, second = run.trials()[:2]
    run.write(first.but(candidate=second.candidate))
    report = replay(run)
    assert not report.same
    assert report.exit_code == 1
    assert any("trials/0000.json" in line for line in report.lines())


@pytest.mark.slow
def test_a_changed_accuracy_changes_the_finalists(lab: Any) -> None:
    lab.search()
    run = Run.open(lab.folder)
    best = next(t for t in run.trials() if t.number == run.finalists()[0].trial)
    assert best.accuracy is not None
    run.write(best.but(accuracy=best.accuracy.but(value=0.01)))
    differ = {step.name for step in replay(run).steps if step.differ}
    assert "finalists" in differ


@pytest.mark.slow
def test_a_changed_choice_shows(lab: Any) -> None:
    lab.search()
    run = Run.open(lab.folder)
    outcome = run.outcome()
    assert outcome is not None
    run.write(outcome.but(chosen=(outcome.chosen or 0) + 1))
    assert [step.name for step in replay(run).steps if step.differ] == ["choice"]


@pytest.mark.slow
def test_a_missing_trial_is_named(lab: Any) -> None:
    lab.search()
    (lab.folder / "trials" / "0003.json").unlink()
    with pytest.raises(ConfigurationError, match="trial 3 is missing"):
        replay(Run.open(lab.folder))


@pytest.mark.parametrize("recorded", sorted(GOLDEN.iterdir()), ids=lambda p: p.name)
def test_recorded_runs_are_reproduced_for_ever(recorded: Path, tmp_path: Path) -> None:
    shutil.copytree(recorded, tmp_path / "run")
    report = replay(Run.open(tmp_path / "run"))
    assert report.same, report.lines()
