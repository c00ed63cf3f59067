"""The temperature of a finalist: short trainings, halved; the whole recipe then runs with the best."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edgekd.distill.stage import Distill
from edgekd.events import SilentEvents
from edgekd.evidence import AccuracyKind
from edgekd.search import refiner
from edgekd.search._protocol import Estimate, EstimateContext
from edgekd.search.budget import Budget
from edgekd.search.relaxed import gap
from edgekd.search.relaxed.gap import Gap, decided_temperature, temperature_of, with_temperature
from edgekd.store.records import Accuracy
from edgekd.store.run import Run


def recipe(**loss: Any) -> tuple[Distill, ...]:
    return (Distill.model_validate({"loss": loss or {"kd": {"temperature": 4}}, "epochs": 8}),)


def score(value: float) -> Accuracy:
    return Accuracy(value=value, kind=AccuracyKind.TORCH, split="validation", samples=100, method="on paper")


@pytest.fixture
def searched(make_lab):
    lab = make_lab()
    lab.search()
    return Run.open(lab.folder)


def choosing(run: Run, monkeypatch: Any, scores: dict[float, float], temperatures: tuple[float, ...]) -> list[Any]:
    """Run it with scripted accuracies; returns (temperature, epochs) of every training."""
    asked = []

    def trained(candidate: Any, stages: Any, *_: Any) -> Estimate:
        asked.append((stages[0].loss.parts[-1][1].temperature, stages[0].epochs))
        return Estimate(score(scores[asked[-1][0]]))

    monkeypatch.setattr(gap, "run_and_score", trained)
    nothing: Any = None
    context = EstimateContext(
        task=nothing,
        teacher=None,
        family=nothing,
        recipe=recipe(),
        fingerprint=None,
        students=run.students,
        stages=run.stages,
        cache=run.scratch,
        seed=0,
        progress=lambda _: None,
        stop=lambda: False,
    )
    Gap(run, temperatures, context, SilentEvents(), Budget(None, lambda: 0.0))(run.trials()[:1])
    return asked


def test_the_better_half_trains_longer(searched, monkeypatch):
    asked = choosing(searched, monkeypatch, {1: 0.5, 2: 0.9, 4: 0.7, 8: 0.6}, (1, 2, 4, 8))
    assert asked == [(4, 2), (1, 2), (2, 2), (8, 2), (4, 4), (2, 4)]
    (record,) = searched.gaps()
    assert record.temperature == 2.0
    assert [sorted(round_) for round_ in record.rounds] == [["1", "2", "4", "8"], ["2", "4"]]
    assert choosing(searched, monkeypatch, {}, (1, 2, 4, 8)) == []  # it is written down


def test_equals_keep_the_recipes_own(searched, monkeypatch):
    choosing(searched, monkeypatch, {2: 0.5, 4: 0.5, 8: 0.5}, (2, 4, 8))
    assert searched.gaps()[0].temperature == 4.0


def test_the_whole_recipe_runs_with_it(searched, monkeypatch):
    choosing(searched, monkeypatch, {2: 0.9, 4: 0.5}, (2, 4))
    trial, other = searched.trials()[:2]
    context: Any = SimpleNamespace(recipe=recipe())
    parts: Any = None
    found = refiner.RecipeRefiner(searched, context, parts, parts, parts)
    assert temperature_of(found._recipe(trial.candidate)) == 2.0
    assert temperature_of(found._recipe(other.candidate)) == 4.0


def test_only_what_softens_is_changed():
    (stage,) = with_temperature(recipe(kd={"temperature": 4, "weight": 0.5}, dist={"weight": 0.3}), 2.0)
    by_name = dict(stage.loss.parts)
    assert by_name["kd"].temperature == by_name["dist"].temperature == 2.0
    assert by_name["kd"].weight == 0.5
    assert temperature_of(recipe(ce={})) is None


def test_a_scheduled_temperature_stays():
    scheduled = recipe(kd={"temperature": {"from": 8, "to": 2}, "weight": 0.5})
    assert temperature_of(scheduled) is None
    assert with_temperature(scheduled, 3.0) == scheduled


def test_the_last_round_decides():
    assert decided_temperature([{"2": score(0.9), "4": score(0.5)}, {"4": score(0.6)}]) == 4.0
