from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import cross_entropy, softmax

from edgekd.distill.curve import read_curve
from edgekd.distill.losses.combined import Combined
from edgekd.distill.losses.criterion import Batch
from edgekd.distill.predict import predict
from edgekd.distill.stage import Distill
from edgekd.errors import ConfigurationError, Interrupted
from edgekd.recipes import mutual
from edgekd.recipes.mutual import Mutual, _Mutual
from edgekd.recipes.runner import run_recipe
from edgekd.search.recipe import epochs_of, shortened
from edgekd.tasks._protocol import Score
from edgekd.testing.contracts.stage import StageContract, StageLife

QUICK = {"epochs": 2, "batch_size": 32, "precision": "float32"}
WIDE = {"width1": 16}


@pytest.mark.slow
class TestMutual(StageContract):
    @pytest.fixture
    def life(self, student, context):
        return StageLife(Mutual(**QUICK), Mutual(**QUICK, weight=0.5), student, context)


def answers(student, task):
    return predict(student.module, task.split("validation").inputs, task.spec)


def test_the_loss_is_the_papers():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((5, 9), generator=generator, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 1, 0])
    objective = _Mutual(Combined.model_validate("ce"), 3, 1.0, 1.0)
    terms = objective(logits, None, {}, {}, Batch(torch.arange(5), labels))
    (found,) = torch.autograd.grad(sum(terms), [logits])
    assert objective.names() == ["ce", "peers"]
    for k in range(3):
        own = logits.detach()[:, 3 * k : 3 * k + 3].requires_grad_(True)
        p = softmax(own, 1)
        loss = cross_entropy(own, labels)
        for other in {0, 1, 2} - {k}:
            q = softmax(logits.detach()[:, 3 * other : 3 * other + 3], 1)
            loss = loss + (q * (q.log() - p.log())).sum(1).mean() / 2
        (expected,) = torch.autograd.grad(loss, [own])
        assert torch.allclose(found[:, 3 * k : 3 * k + 3], expected, atol=1e-6)


def test_students_that_agree_do_not_pull():
    logits = torch.randn((4, 3)).repeat(1, 2)
    terms = _Mutual(Combined.model_validate("ce"), 2, 1.0, 4.0)(
        logits, None, {}, {}, Batch(torch.arange(4), torch.zeros(4, dtype=torch.int64))
    )
    assert terms[1] == pytest.approx(0.0, abs=1e-6)


def top1_of(value):
    return Score(metric="top1", value=value, samples=10)


@pytest.mark.slow
def test_without_a_pull_the_first_is_trained_as_if_alone(student, context, task, tmp_path, monkeypatch):
    monkeypatch.setattr(mutual, "scored", lambda *_: top1_of(0.5))
    kept = Mutual(**QUICK, weight=0.0).run(student, context(tmp_path))
    alone = Distill(**QUICK, loss="ce").run(student, context(tmp_path / "alone"))
    # the probe may choose another memory layout for the cohort, which changes the last bits
    assert np.allclose(answers(kept, task), answers(alone, task), atol=1e-4)
    pulled = Mutual(**QUICK).run(student, context(tmp_path / "pulled"))
    assert not np.allclose(answers(pulled, task), answers(alone, task), atol=1e-3)


@pytest.mark.slow
def test_the_best_of_the_own_arch_is_kept(student, context, task, tmp_path, monkeypatch):
    scores = iter([0.1, 0.2, 0.1, 0.2, 0.4, 0.7])  # two validations of two students, then the choice
    monkeypatch.setattr(mutual, "scored", lambda *_: top1_of(next(scores)))
    reported = []
    kept = Mutual(**QUICK, others=(WIDE,)).run(student, context(tmp_path, progress=reported.append))
    assert reported[-1].note == "kept student 2 of 2, validation 40.0%, 70.0%"
    assert kept.arch == student.arch
    assert {n: t.shape for n, t in kept.module.state_dict().items()} == {
        n: t.shape for n, t in student.module.state_dict().items()
    }


@pytest.mark.slow
def test_a_teacher_may_teach_them_all_besides(student, context, teacher, tmp_path):
    stage = Mutual.model_validate({**QUICK, "loss": {"kd": {"weight": 0.5}}, "views": 1})
    stage.run(student, context(tmp_path))
    assert teacher.images == 90
    curve = read_curve(tmp_path / "stage")
    assert set(curve[-1].shares) == {"ce", "kd", "peers"}


@pytest.mark.slow
@pytest.mark.parametrize("asks", [2, 5])
def test_killed_in_any_step_it_ends_the_same(student, context, task, tmp_path, asks):
    stage = Mutual(**QUICK, others=(WIDE,))
    whole = stage.run(student, context(tmp_path / "whole"))
    countdown = iter([False] * asks)
    with pytest.raises(Interrupted):
        stage.run(student, context(tmp_path / "parts", stop=lambda: next(countdown, True)))
    resumed = stage.run(student, context(tmp_path / "parts"))
    assert np.array_equal(answers(resumed, task), answers(whole, task))


def test_in_a_recipe_it_leaves_its_curve_and_nothing_else(student, context, tmp_path):
    result = run_recipe([Mutual(**QUICK)], student, context(tmp_path, teacher=None), tmp_path / "students")
    assert [point.epoch for point in result.curve] == [0, 1]
    assert sorted(path.name for path in (tmp_path / "stage" / result.key).iterdir()) == ["curve.jsonl", "done.json"]


def test_every_reason_is_found_before_anything_is_trained(student, context, teacher, tmp_path, monkeypatch):
    from edgekd.students.resnet import ResNet

    (problem,) = Mutual(**QUICK, others=({"girth": 3},)).check(student, context(tmp_path))
    assert "no axis `girth`" in problem.message
    (problem,) = Mutual(**QUICK, others=({"width1": -8},)).check(student, context(tmp_path))
    assert "no peer can be built" in problem.message
    taught = Mutual.model_validate({**QUICK, "loss": "kd"})
    (problem,) = taught.check(student, context(tmp_path, teacher=None))
    assert problem.message.startswith("mutual: the loss needs a teacher")
    monkeypatch.setattr(ResNet, "inherits", True)
    (problem,) = Mutual(**QUICK).check(student, context(tmp_path))
    assert "would all be identical" in problem.message
    with pytest.raises(ConfigurationError, match="would all be identical"):
        Mutual(**QUICK).run(student, context(tmp_path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"peers": 1}, "needs two students"),
        ({"loss": "fitnet"}, "inner activations"),
        ({"freeze": ["stem"]}, "stay random"),
    ],
)
def test_options_that_make_no_sense(options, words):
    with pytest.raises(ValidationError, match=words):
        Mutual.model_validate(options)
    assert Mutual(peers=1, others=(WIDE,)).passes == 80


def test_a_search_reckons_with_it_and_shortens_it():
    (short,) = shortened([Mutual(epochs=30, peers=3)], 4)
    assert (type(short), short.epochs) == (Distill, 4)
    assert epochs_of([Mutual(epochs=30, peers=3)]) == 90
