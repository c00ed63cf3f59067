from __future__ import annotations

import time

import pytest
import torch

from edgekd.distill import stage
from edgekd.errors import EdgeKDError, Interrupted
from edgekd.recipes.teach import TrainedTeacher
from edgekd.tasks.digits import Digits
from edgekd.teachers.binding import bind
from edgekd.teachers.ensemble import EnsembleTeacher

pytestmark = pytest.mark.slow  # trains a network


def test_is_trained_once_and_answers_like_a_teacher(task, tmp_path):
    told = []
    options = TrainedTeacher(width=8, epochs=8, batch_size=32)
    first = options.prepare(task, tmp_path, told.append)
    assert told[-1].stage == "teacher"
    assert told[-1].done == told[-1].total == 8 * 90
    told.clear()
    again = options.prepare(task, tmp_path, told.append)
    assert told == []
    raw = torch.from_numpy(task.split("test").inputs).float()
    assert torch.equal(first.logits(raw), again.logits(raw))
    assert first.digest() == again.digest() != TrainedTeacher(width=16).prepare(task, tmp_path).digest()
    assert bind(first, task.spec).classes == 3
    assert not first.logits(raw).requires_grad
    assert task.score(first.logits(raw).numpy(), task.split("test").labels).value > 0.9


def test_weights_of_another_recipe_are_another_teacher(task, tmp_path, monkeypatch):
    """What it answered is kept by its digest: the answers of other weights must not be found there."""
    options = TrainedTeacher(width=8, epochs=1)
    before = options.prepare(task, tmp_path).digest()
    monkeypatch.setattr(stage, "_VERSION", 99)
    assert options.prepare(task, tmp_path).digest() != before


def test_two_of_them_make_an_ensemble(task, tmp_path):
    members = [{"kind": "train", "width": 8, "epochs": 1}, {"kind": "train", "width": 16, "epochs": 1}]
    asked = EnsembleTeacher.model_validate({"members": members})
    ready = bind(asked.prepare(task, tmp_path, lambda _: None, lambda: False), task.spec)
    raw = torch.from_numpy(task.split("test").inputs).float()
    alone = [TrainedTeacher(width=w, epochs=1).prepare(task, tmp_path).logits(raw) for w in (8, 16)]
    torch.testing.assert_close(ready.logits(raw), (alone[0] + alone[1]) / 2)


def test_says_that_it_is_not_trained(tmp_path):
    with pytest.raises(EdgeKDError, match="prepare"):
        TrainedTeacher().logits(torch.zeros(1, 1, 8, 8))


def test_can_be_stopped(task, tmp_path):
    with pytest.raises(Interrupted):
        TrainedTeacher(width=8).prepare(task, tmp_path, stop=lambda: True)


@pytest.mark.runtime
def test_default_is_good_on_digits_within_its_time(tmp_path):
    digits = Digits()
    begun = time.process_time()
    teacher = TrainedTeacher().prepare(digits, tmp_path)
    assert time.process_time() - begun < 160, "it takes about 15 s on 2 cores, and other programs may run beside a test"
    validation = digits.split("validation")
    answers = teacher.logits(torch.from_numpy(validation.inputs).float())
    assert digits.score(answers.numpy(), validation.labels).value >= 0.975
