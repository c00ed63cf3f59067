"""The temperature of a finalist: short trainings, halved; the whole recipe then runs with the best."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edgekd.distill.stage import Distill
from edgekd.events import SilentEvents
from edgekd.evidence import AccuracyKind
from edgekd.search._protocol import Estimate, EstimateContext
from edgekd.search.budget import Budget
from edgekd.search.differentiable import teacher_tuning
from edgekd.search.differentiable.teacher_tuning import (
    TeacherTuning,
    TeachingSetting,
    decided,
    recipes_tried,
    temperature_of,
    with_temperature,
)
from edgekd.search.finalists import trainer
from edgekd.search.plan import _tried
from edgekd.store.differentiable_options import AssistantOptions, DifferentiableOptions
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


def choosing(
    run: Run,
    monkeypatch: Any,
    scores: dict[Any, float],
    temperatures: tuple[float, ...],
    assistant: AssistantOptions | None = None,
    stages: tuple[Distill, ...] = recipe(),
) -> list[Any]:
    """Run it with scripted accuracies; returns (temperature or temperature and teacher, epochs) of every training."""
    asked: list[Any] = []

    def trained(candidate: Any, stages: Any, context: EstimateContext, *_: Any) -> Estimate:
        temperature = stages[0].loss.parts[-1][1].temperature
        way: Any = (temperature, context.teacher) if assistant else temperature
        asked.append((way, stages[0].epochs))
        return Estimate(score(scores[way]))

    monkeypatch.setattr(teacher_tuning, "run_and_score", trained)
    monkeypatch.setattr(teacher_tuning, "assistant_of", lambda *_: "assistant")
    teacher: Any = "teacher"
    nothing: Any = None
    context = EstimateContext(
        task=nothing,
        teacher=teacher,
        family=nothing,
        recipe=stages,
        fingerprint=None,
        students=run.students,
        stages=run.stages,
        cache=run.scratch,
        seed=0,
        progress=lambda _: None,
        stop=lambda: False,
    )
    TeacherTuning(run, temperatures, assistant, context, SilentEvents(), Budget(None, lambda: 0.0))(run.trials()[:1])
    return asked


@pytest.mark.slow
def test_the_better_half_trains_longer(searched, monkeypatch):
    asked = choosing(searched, monkeypatch, {1: 0.5, 2: 0.9, 4: 0.7, 8: 0.6}, (1, 2, 4, 8))
    assert asked == [(4, 2), (1, 2), (2, 2), (8, 2), (4, 4), (2, 4)]
    (record,) = searched.teacher_tunings()
    assert record.temperature == 2.0
    assert [sorted(round_) for round_ in record.rounds] == [["1", "2", "4", "8"], ["2", "4"]]
    assert choosing(searched, monkeypatch, {}, (1, 2, 4, 8)) == []  # it is written down


@pytest.mark.slow
def test_every_stage_of_a_recipe_is_shortened_alike(searched, monkeypatch):
    stages = (*recipe(), recipe()[0].but(epochs=40))
    seen = []
    monkeypatch.setattr(
        teacher_tuning, "run_and_score", lambda _, given, *__: seen.append(given) or Estimate(score(0.5))
    )
    context: Any = SimpleNamespace(recipe=stages, teacher="teacher")
    TeacherTuning(searched, (2, 4), None, context, SilentEvents(), Budget(None, lambda: 0.0))(searched.trials()[:1])
    assert [[stage.epochs for stage in each] for each in seen] == [[2, 10], [2, 10], [4, 20]]
    assert recipes_tried(2) == sum(stage.epochs for each in seen for stage in each) / 48


def test_a_finalist_is_reckoned_with_all_it_tries(task, teacher):
    options = DifferentiableOptions(temperatures=(2, 4, 8), assistant=AssistantOptions())
    project: Any = SimpleNamespace(recipe=recipe(), teacher=teacher)
    assert _tried(project, options) == 6 * 0.25 + 3 * 0.5
    assert _tried(project, DifferentiableOptions()) == _tried(project, None) == 0.0
    assert (
        _tried(SimpleNamespace(recipe=recipe(), teacher=None), DifferentiableOptions(assistant=AssistantOptions()))
        == 0.0
    )


@pytest.mark.slow
def test_equals_keep_the_recipes_own(searched, monkeypatch):
    choosing(searched, monkeypatch, {2: 0.5, 4: 0.5, 8: 0.5}, (2, 4, 8))
    assert searched.teacher_tunings()[0].temperature == 4.0


@pytest.mark.slow
def test_the_whole_recipe_runs_with_it(searched, monkeypatch):
    choosing(searched, monkeypatch, {2: 0.9, 4: 0.5}, (2, 4))
    trial, other = searched.trials()[:2]
    context: Any = SimpleNamespace(recipe=recipe())
    parts: Any = None
    found = trainer.RecipeTrainer(searched, context, parts, parts, parts)
    assert temperature_of(found._taught(trial.candidate)[0]) == 2.0
    assert temperature_of(found._taught(other.candidate)[0]) == 4.0


def cut_to_half(run: Run) -> None:
    ended = run.proposals()
    assert ended is not None
    run.write(ended.but(share=0.5))


@pytest.mark.slow
def test_a_recipe_that_is_cut_to_the_time_left_trains_so_many_epochs(searched):
    context: Any = SimpleNamespace(recipe=(*recipe(), recipe()[0].but(epochs=3)))
    parts: Any = None
    found = trainer.RecipeTrainer(searched, context, parts, parts, parts)
    candidate = searched.trials()[0].candidate
    assert [stage.epochs for stage in found._taught(candidate)[0]] == [8, 3]
    cut_to_half(searched)
    assert [stage.epochs for stage in found._taught(candidate)[0]] == [4, 2]


@pytest.mark.slow
def test_what_is_tried_is_a_share_of_the_recipe_that_is_cut(searched, monkeypatch):
    cut_to_half(searched)
    assert choosing(searched, monkeypatch, {2: 0.9, 4: 0.5}, (2, 4)) == [(4, 1), (2, 1), (2, 2)]


@pytest.mark.slow
def test_a_model_that_stays_as_it_came_is_taught_nothing(searched, monkeypatch):
    trial = searched.trials()[0]
    searched.write(trial.but(candidate=trial.candidate.but(plan=trial.candidate.plan.but(untouched=True))))
    assert choosing(searched, monkeypatch, {}, (2, 4)) == []


@pytest.mark.slow
def test_an_assistant_may_teach_it(searched, monkeypatch):
    scores = {(4, "teacher"): 0.5, (4, "assistant"): 0.7, (2, "teacher"): 0.6, (2, "assistant"): 0.65}
    asked = choosing(searched, monkeypatch, scores, (2, 4), AssistantOptions())
    assert [way for way, _ in asked[4:]] == [(4, "assistant"), (2, "assistant")]
    (record,) = searched.teacher_tunings()
    assert (record.temperature, record.assistant) == (4.0, True)
    assert sorted(record.rounds[0]) == ["2", "4", "assistant, 2", "assistant, 4"]


@pytest.mark.slow
def test_an_assistant_alone_is_tried_at_the_recipes_own_temperature(searched, monkeypatch):
    scores = {(4, "teacher"): 0.5, (4, "assistant"): 0.5}
    asked = choosing(searched, monkeypatch, scores, (), AssistantOptions())
    assert [way for way, _ in asked] == [(4, "teacher"), (4, "assistant"), (4, "teacher")]
    assert not searched.teacher_tunings()[0].assistant


def test_only_what_softens_is_changed():
    (stage,) = with_temperature(recipe(kd={"temperature": 4, "weight": 0.5}, dist={"weight": 0.3}), 2.0)
    by_name = dict(stage.loss.parts)
    assert by_name["kd"].temperature == by_name["dist"].temperature == 2.0
    assert by_name["kd"].weight == 0.5
    assert temperature_of(recipe(ce={})) is None


def test_the_temperature_of_contrast_is_another_one():
    both = recipe(crd={}, kd={"temperature": 4})
    assert temperature_of(both) == 4.0
    assert dict(with_temperature(both, 2.0)[0].loss.parts)["crd"].temperature == 0.07


@pytest.mark.slow
def test_asked_for_in_vain_it_is_said(searched, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(SilentEvents, "line", lambda _, text: said.append(text))
    assert choosing(searched, monkeypatch, {}, (2, 4), stages=recipe(mlkd={})) == []
    assert [line for line in said if "as the recipe says" in line]


def test_a_scheduled_temperature_stays():
    scheduled = recipe(kd={"temperature": {"from": 8, "to": 2}, "weight": 0.5})
    assert temperature_of(scheduled) is None
    assert with_temperature(scheduled, 3.0) == scheduled


def test_the_last_round_decides():
    assert decided([{"2": score(0.9), "4": score(0.5)}, {"4": score(0.6)}]) == TeachingSetting(4.0, False)
    assert decided([{"assistant, 2": score(0.9), "4": score(0.5)}]) == TeachingSetting(2.0, True)
