from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgekd.distill.curve import read_curve
from edgekd.distill.predict import predict
from edgekd.distill.stage import Distill
from edgekd.errors import ConfigurationError, Interrupted
from edgekd.recipes import born_again, cohort
from edgekd.recipes.born_again import BornAgain
from edgekd.recipes.runner import run_recipe
from edgekd.records import digest_json
from edgekd.search.recipe import epochs_of, shortened
from edgekd.tasks._protocol import Split
from edgekd.testing.contracts.stage import StageContract, StageLife

QUICK = {"epochs": 2, "batch_size": 32, "precision": "float32"}


@pytest.mark.slow
class TestBornAgain(StageContract):
    @pytest.fixture
    def life(self, student, context):
        return StageLife(BornAgain(**QUICK), BornAgain(**QUICK, generations=3), student, context)


def answers(student, task):
    return predict(student.module, task.split("validation").inputs, task.spec)


def scored(task, *values):
    """Validation scores, one a generation, in place of the real ones."""
    left = iter(values)
    return lambda student, context: next(left)


@pytest.mark.slow
def test_the_first_generation_is_plain_distill(student, context, task, tmp_path, monkeypatch):
    monkeypatch.setattr(born_again, "validated", scored(task, 0.9, 0.5))
    reported = []
    kept = BornAgain(**QUICK).run(student, context(tmp_path, progress=reported.append))
    plain = Distill(**QUICK).run(student, context(tmp_path / "plain"))
    assert np.array_equal(answers(kept, task), answers(plain, task))
    assert reported[-1].note == "kept generation 1 of 2, validation 90.0%"
    assert {at.stage for at in reported} == {"born-again"}


@pytest.mark.slow
def test_the_next_is_fresh_and_taught_by_the_one_before(student, context, task, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(born_again, "validated", scored(task, 0.5, 0.9))
    given = []
    run = Distill.run
    monkeypatch.setattr(Distill, "run", lambda self, s, c: given.append((self, s, c)) or run(self, s, c))
    stage = BornAgain(**QUICK, views=1)
    kept = stage.run(student, context(tmp_path))
    (one, first, at_first), (two, second, at_second) = given
    assert one == two == Distill(**QUICK, views=1)
    assert at_first.teacher is teacher
    assert at_second.teacher.name == "generation 1"
    assert teacher.images == 90  # asked by the first generation alone
    assert first is student
    assert not torch.equal(second.module.stem.conv.weight, student.module.stem.conv.weight)
    assert second.arch == student.arch
    assert np.array_equal(
        answers(run(two, second, replace(at_second, folder=tmp_path / "again")), task), answers(kept, task)
    )


@pytest.mark.slow
def test_without_a_teacher_the_first_learns_from_labels(student, context, task, tmp_path, monkeypatch):
    given = []
    run = Distill.run
    monkeypatch.setattr(Distill, "run", lambda self, s, c: given.append(self) or run(self, s, c))
    stage = BornAgain.model_validate({**QUICK, "loss": {"kd": {"weight": 0.9}, "ce": {"label_smoothing": 0.1}}})
    alone = context(tmp_path, teacher=None)
    assert list(stage.check(student, alone)) == []
    stage.run(student, alone)
    assert [each.loss.needs_teacher for each in given] == [False, True]
    ((name, loss),) = given[0].loss.parts
    assert (name, loss.label_smoothing, loss.weight) == ("ce", 0.1, 1.0)


def test_a_student_with_inherited_weights_starts_as_it_was_given(student, context, task, tmp_path, monkeypatch):
    from edgekd.students.resnet import ResNet

    monkeypatch.setattr(ResNet, "inherits", True)
    assert cohort.fresh_like(student, 1) is None
    monkeypatch.setattr(ResNet, "inherits", False)
    other = student.but(module=torch.nn.Sequential(student.module))  # an earlier stage changed its shape
    assert cohort.fresh_like(other, 1) is None
    assert cohort.fresh_like(student, 1) is not None


@pytest.mark.slow
@pytest.mark.parametrize(("scores", "kept"), [((0.5, 0.7, 0.7), 2), ((-3.0, -4.0, -5.0), 1), ((None, None, None), 3)])
def test_the_best_is_kept_and_of_equals_the_earliest(student, context, task, tmp_path, monkeypatch, scores, kept):
    monkeypatch.setattr(born_again, "validated", scored(task, *scores))
    reported = []
    BornAgain(**{**QUICK, "epochs": 1}, generations=3).run(student, context(tmp_path, progress=reported.append))
    assert reported[-1].note.startswith(f"kept generation {kept} of 3")


def test_no_validation_samples_score_nothing(student, context, task, tmp_path, monkeypatch):
    empty = Split("validation", np.zeros((0, 1, 8, 8), np.uint8), np.zeros(0, np.int64), digest_json("empty"))
    monkeypatch.setattr(type(task), "split", lambda self, name: empty)
    assert cohort.validated(student, context(tmp_path)) is None


@pytest.mark.slow
@pytest.mark.parametrize("asks", [3, 9, 14])
def test_killed_in_any_generation_it_ends_the_same(student, context, task, tmp_path, asks):
    stage = BornAgain(**QUICK)  # each generation is answered for, and trained in 2 epochs of 3 steps
    whole = stage.run(student, context(tmp_path / "whole"))
    countdown = iter([False] * asks)
    with pytest.raises(Interrupted):
        stage.run(student, context(tmp_path / "parts", stop=lambda: next(countdown, True)))
    resumed = stage.run(student, context(tmp_path / "parts"))
    assert np.array_equal(answers(resumed, task), answers(whole, task))
    assert [point.epoch for point in read_curve(tmp_path / "parts" / "stage")] == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_finished_generation_is_not_trained_again(student, context, tmp_path, monkeypatch):
    stage, where = BornAgain(**QUICK), context(tmp_path)
    stage.run(student, where)
    monkeypatch.setattr(Distill, "run", lambda *_: pytest.fail("trained again"))
    stage.run(student, where)


@pytest.mark.slow
def test_in_a_recipe_it_leaves_its_curve_and_nothing_else(student, context, tmp_path):
    result = run_recipe([BornAgain(**QUICK)], student, context(tmp_path), tmp_path / "students")
    assert [point.epoch for point in result.curve] == [0, 1, 2, 3]
    assert sorted(path.name for path in (tmp_path / "stage" / result.key).iterdir()) == ["curve.jsonl", "done.json"]
    assert [path.name for path in (tmp_path / "students").iterdir()] == [result.key]


def test_every_reason_is_found_before_anything_is_trained(student, context, teacher, tmp_path):
    teacher.classes = 7
    (problem,) = BornAgain(**QUICK).check(student, context(tmp_path))
    assert "7 classes" in problem.message
    with pytest.raises(ConfigurationError, match="7 classes"):
        BornAgain(**QUICK).run(student, context(tmp_path))
    with pytest.raises(ValidationError, match="no generation would be distilled"):
        BornAgain.model_validate({"loss": "ce"})
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        BornAgain(generations=1)


def test_a_search_can_shorten_it():
    (short,) = shortened([BornAgain(epochs=30, generations=3)], 4)
    assert type(short) is Distill  # its first generation ranks as well
    assert short.epochs == 4
    assert epochs_of([BornAgain(epochs=30, generations=3)]) == 90
