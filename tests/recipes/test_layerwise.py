from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgekd.distill.curve import read_curve
from edgekd.distill.predict import predict
from edgekd.distill.stage import Distill
from edgekd.errors import ConfigurationError, Interrupted
from edgekd.recipes.layerwise import Layerwise
from edgekd.recipes.runner import run_recipe
from edgekd.search.recipe import epochs_of, shortened
from edgekd.students.points import feeding, layout_of
from edgekd.testing.contracts.stage import StageContract, StageLife
from edgekd.testing.fakes.bars import BarTeacher, OpenBarTeacher

QUICK = {"epochs": 2, "batch_size": 32, "precision": "float32"}


@pytest.fixture
def teacher():
    return OpenBarTeacher()


@pytest.mark.slow
class TestLayerwise(StageContract):
    @pytest.fixture
    def life(self, student, context):
        return StageLife(Layerwise(**QUICK), Layerwise(**{**QUICK, "epochs": 3}), student, context)


def weights(module, prefix):
    return {n: t.clone() for n, t in module.state_dict().items() if n.startswith(prefix)}


def same(one, two):
    return all(torch.equal(one[name], two[name]) for name in one)


def trainings(monkeypatch):
    """What each training was given, and what came out of it."""
    seen, run = [], Distill.run

    def noted(self, student, context):
        result = run(self, student, context)
        if type(self) is Distill:
            seen.append((self, student, result))
        return result

    monkeypatch.setattr(Distill, "run", noted)
    return seen


@pytest.mark.slow
def test_each_block_learns_alone_and_labels_are_not_looked_at(student, context, tmp_path, monkeypatch):
    seen = trainings(monkeypatch)
    result = Layerwise(**QUICK).run(student, context(tmp_path))
    (first, _, one), (second, given, two) = seen
    assert first.loss.model_dump()["fitnet"]["points"] == [["blocks.0", "blocks.0"]]
    assert second.loss.model_dump()["fitnet"]["points"] == [["blocks.1", "blocks.1"]]
    assert first.loss.model_dump()["ce"]["weight"] == 0.0
    assert (first.freeze, second.freeze) == (("blocks.1", "head"), ("stem", "blocks.0", "head"))
    own = student.module
    for part, before, after in [
        ("stem", own, one.module), ("blocks.0", own, one.module), ("blocks.1", one.module, two.module),
    ]:  # fmt: skip
        assert not same(weights(before, part), weights(after, part)), part
    for part, before, after in [
        ("blocks.1", own, one.module), ("head", own, one.module),
        ("stem", one.module, two.module), ("blocks.0", one.module, two.module), ("head", own, two.module),
    ]:  # fmt: skip
        assert same(weights(before, part), weights(after, part)), part  # its statistics too
    assert same(given.module.state_dict(), one.module.state_dict())
    assert same(result.module.state_dict(), two.module.state_dict())


@pytest.mark.slow
def test_features_come_nearer_to_the_teachers(student, context, teacher, tmp_path):
    trained = Layerwise(**{**QUICK, "epochs": 8, "learning_rate": 0.3}, join=None)
    trained.run(student, context(tmp_path))
    curve = read_curve(tmp_path / "stage")
    assert [point.epoch for point in curve] == list(range(16))
    assert curve[7].loss < 0.7 * curve[0].loss
    assert curve[15].loss < 0.7 * curve[8].loss


@pytest.mark.parametrize(
    ("loss", "weight"),
    [
        ("fitnet", 1.0),
        ({"fitnet": {}}, 1.0),
        ({"fitnet": None}, 1.0),
        ([{"fitnet": {}}], 1.0),
        ({"fitnet": {"weight": 5}}, 5.0),
        ("attention", 100.0),
    ],
)
def test_a_loss_that_stands_alone_is_not_weighed_against_labels(loss, weight):
    ((_, given),) = Layerwise.model_validate({"loss": loss}).loss.features
    assert given.weight == weight


@pytest.mark.slow
def test_the_joined_student_learns_the_task(student, context, task, tmp_path, monkeypatch):
    seen = trainings(monkeypatch)
    stage = Layerwise(**QUICK, join=Distill(**{**QUICK, "epochs": 8}, loss={"ce": {}}, ema=0.0))
    result = stage.run(student, context(tmp_path))
    assert [each.loss.needs_teacher for each, _, _ in seen] == [True, True, False]
    validation = task.split("validation")
    assert task.score(predict(result.module, validation.inputs, task.spec), validation.labels).value > 0.6


@pytest.mark.slow
def test_pairs_of_ones_own_are_blocks_in_the_students_order(student, context, tmp_path, monkeypatch):
    seen = trainings(monkeypatch)
    points = [["blocks.1", "blocks.1"], ["stem", "stem"], ["blocks.1.norm1", "blocks.1.norm1"]]
    Layerwise.model_validate({**QUICK, "epochs": 1, "loss": {"attention": {"points": points}}}).run(
        student, context(tmp_path)
    )
    assert [each.freeze for each, _, _ in seen] == [
        ("blocks", "head"),
        ("stem", "blocks.1.conv2", "blocks.1.norm2", "blocks.1.shortcut", "head"),
        ("stem", "blocks.0", "blocks.1.conv1", "blocks.1.norm1", "head"),
    ]


@pytest.mark.slow
def test_what_is_frozen_by_hand_stays_so_and_a_block_of_it_is_passed_over(student, context, tmp_path, monkeypatch):
    seen = trainings(monkeypatch)
    Layerwise(**QUICK, freeze=("stem", "blocks.0")).run(student, context(tmp_path))
    assert [each.freeze for each, _, _ in seen] == [("stem", "blocks.0", "stem", "blocks.0", "head")]


@pytest.mark.slow
@pytest.mark.parametrize("asks", [3, 12, 16])
def test_killed_in_any_block_it_ends_the_same(student, context, task, tmp_path, asks):
    stage = Layerwise(**QUICK, join=Distill(**QUICK))
    whole = stage.run(student, context(tmp_path / "whole"))
    countdown = iter([False] * asks)
    with pytest.raises(Interrupted):
        stage.run(student, context(tmp_path / "parts", stop=lambda: next(countdown, True)))
    resumed = stage.run(student, context(tmp_path / "parts"))
    assert same(whole.module.state_dict(), resumed.module.state_dict())
    assert [point.epoch for point in read_curve(tmp_path / "parts" / "stage")] == list(range(6))


@pytest.mark.slow
def test_in_a_recipe_it_leaves_its_curve_and_nothing_else(student, context, tmp_path):
    reported = []
    result = run_recipe(
        [Layerwise(**QUICK)], student, context(tmp_path, progress=reported.append), tmp_path / "students"
    )
    assert sorted(path.name for path in (tmp_path / "stage" / result.key).iterdir()) == ["curve.jsonl", "done.json"]
    assert {at.stage for at in reported} == {"layerwise"}
    assert any(at.note.startswith("block 2/2") for at in reported)


@pytest.mark.slow
def test_prepared_the_teacher_is_asked_nothing_more(student, context, teacher, tmp_path):
    stage, where = Layerwise(**QUICK, join=Distill(**QUICK)), context(tmp_path)
    stage.prepare(where)
    asked = teacher.images
    stage.run(student, where)
    assert teacher.images - asked < 30  # layouts alone, of one image each


def test_every_reason_is_found_before_anything_is_trained(student, context, tmp_path):
    closed = context(tmp_path, teacher=BarTeacher())
    (problem,) = Layerwise(**QUICK).check(student, closed)
    assert "layerwise: fitnet needs the teacher's features" in problem.message
    (problem,) = Layerwise(**QUICK).check(student, context(tmp_path, teacher=None))
    assert "needs a teacher" in problem.message
    wrong = Layerwise.model_validate({**QUICK, "loss": {"fitnet": {"points": [["blocks.7", "blocks.0"]]}}})
    (problem,) = wrong.check(student, context(tmp_path))
    assert "blocks.7" in problem.message
    (problem,) = Layerwise(**QUICK, freeze=("stem", "blocks")).check(student, context(tmp_path))
    assert "compares blocks.0 and blocks.1, and all layers before are frozen" in problem.message
    with pytest.raises(ConfigurationError, match="are frozen"):
        Layerwise(**QUICK, freeze=("stem", "blocks")).run(student, context(tmp_path))
    joined = Layerwise(**QUICK, join=Distill(**QUICK, freeze=("tail",)))
    (problem,) = joined.check(student, context(tmp_path))
    assert "no part `tail`" in problem.message
    flat = student.but(module=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)))
    (problem,) = Layerwise(**QUICK).check(flat, context(tmp_path))
    assert "matches no points" in problem.message


def test_a_part_that_belongs_to_two_blocks_is_refused(student, context, tmp_path):
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = student.module
            self.early, self.late = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))

        def forward(self, images):
            maps = self.inner.blocks(self.inner.stem(images * self.early))
            return self.inner.head(maps.mean((2, 3))) * self.late

    (problem,) = Layerwise(**QUICK).check(student.but(module=Scaled()), context(tmp_path))
    assert "`root` has weights of two blocks" in problem.message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "kd"}, "`kd` can't be applied to it"),
        ({"loss": {"fitnet": {}, "ce": {"weight": 1}}}, "`ce` can't be applied"),
        ({"label_smoothing": 0.1}, "`label_smoothing` can't be applied"),
        ({"loss": [{"fitnet": {}}, {"attention": {}}]}, "one loss on inner"),
        ({"loss": "simkd"}, "write it under `join`"),
        ({"join": {"epoch": 3}}, "Extra inputs"),
    ],
)
def test_options_that_make_no_sense(options, words):
    with pytest.raises(ValidationError, match=words):
        Layerwise.model_validate(options)


def test_it_is_read_back_from_what_is_written():
    stage = Layerwise.model_validate({"loss": "attention", "join": {"epochs": 5}})
    assert Layerwise.model_validate(stage.model_dump(mode="json")) == stage
    assert stage.but(epochs=3).loss == stage.loss


def test_a_search_reckons_with_it_and_shortens_it():
    stage = Layerwise.model_validate({"epochs": 10, "join": {"epochs": 20}})
    assert epochs_of([stage]) == 50
    (short,) = shortened([stage], 4)
    assert (short.epochs, short.join.epochs) == (1, 4)


def test_what_feeds_a_point(student, task):
    layout = layout_of(student.module, task.spec.input)
    names = set(dict(student.module.named_parameters()))
    assert feeding(student.module, layout, "logits", task.spec.input) == names
    assert feeding(student.module, layout, "penultimate", task.spec.input) == {
        n for n in names if not n.startswith("head")
    }
    assert feeding(student.module, layout, "stem", task.spec.input) == {n for n in names if n.startswith("stem")}
    with torch.inference_mode():
        assert feeding(student.module, layout, "stem", task.spec.input)
    assert np.all([p.grad is None for p in student.module.parameters()])
