from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgekd.search.explain import explain
from edgekd.store.records import CurvePoint
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student, save_student
from edgekd.tasks.shapes import Shapes


def finished(folder, student, *shares):
    """A run with one finalist, whose epochs had these shares."""
    save_student(student, folder / "students" / "key")
    curve = [
        CurvePoint(epoch=epoch, loss=1.0, validation=None, rate=0.1, images_per_s=1.0, shares=told)
        for epoch, told in enumerate(shares)
    ]
    finalist = SimpleNamespace(rank=1, student="key", curve=curve)
    written = []
    return SimpleNamespace(
        outcome=lambda: None, finalists=lambda: (finalist,), students=folder / "students", write=written.append
    )


def test_the_student_is_compared_with_the_teacher(task, teacher, student, tmp_path):
    found = explain(SimpleNamespace(task=task, teacher=teacher), finished(tmp_path, student))
    assert found.following.samples == len(task.split("validation"))
    assert found.following.teacher > found.following.student
    assert any("(in PyTorch float32)" in line for line in found.lines())
    assert max(map(len, found.lines())) <= 80


def test_each_loss_is_told_from_its_first_epoch_to_its_last(task, student, tmp_path):
    run = finished(
        tmp_path, student, {"fitnet": 0.75, "kd": 0.25}, {"fitnet": 0.5, "kd": 0.5}, {}, {"ce": 0.1, "kd": 0.9}
    )
    found = explain(SimpleNamespace(task=task, teacher=None), run)
    assert [(term.name, term.first, term.last) for term in found.terms] == [
        ("kd", 0.25, 0.9), ("fitnet", 0.75, 0.5), ("ce", 0.1, 0.1),
    ]  # fmt: skip
    assert found.following is None
    assert "not told" in found.lines()[-1]


@pytest.mark.parametrize("heads", [("scene", "things"), ("mask",)])
def test_heads_that_give_no_logits_are_not_compared(teacher, tmp_path, heads):
    task = Shapes(train=20, test=4, validation=4, calibration=4, side=32, heads=heads)
    family = ResNet.model_validate({"space": {"width": [8, 8], "depth": [1, 1]}, "stages": 2})
    student = new_student(family, family.space(task.spec).at(0), task.spec, seed=0)
    found = explain(SimpleNamespace(task=task, teacher=teacher), finished(tmp_path, student, {"heads": 0.4, "kd": 0.6}))
    assert found.following is None
    assert len(found.terms) == 2
