from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from edgekd.search.outcome.explain import explain
from edgekd.store.records import CurvePoint
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student, save_student
from edgekd.tasks.shapes import Shapes
from edgekd.teachers.student import StudentTeacher


def finished(folder, student, *shares):
    """A run with one finalist, whose epochs had these shares."""
    save_student(student, folder / "students" / "key")
    curve = [
        CurvePoint(epoch=epoch, loss=1.0, validation=None, rate=0.1, images_per_s=1.0, shares=each)
        for epoch, each in enumerate(shares)
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


def test_each_loss_is_reported_from_its_first_epoch_to_its_last(task, student, tmp_path):
    run = finished(
        tmp_path, student, {"fitnet": 0.75, "kd": 0.25}, {"fitnet": 0.5, "kd": 0.5}, {}, {"ce": 0.1, "kd": 0.9}
    )
    found = explain(SimpleNamespace(task=task, teacher=None), run)
    assert [(term.name, term.first, term.last) for term in found.terms] == [
        ("kd", 0.25, 0.9), ("fitnet", 0.75, 0.5), ("ce", 0.1, 0.1),
    ]  # fmt: skip
    assert found.following is None
    assert "not available" in found.lines()[-1]


SHAPES = {"train": 20, "test": 4, "validation": 4, "calibration": 4, "side": 32}


def student_of(task, seed):
    family = ResNet.model_validate({"space": {"width": [8, 8], "depth": [1, 1]}, "stages": 2})
    return new_student(family, family.space(task.spec).at(0), task.spec, seed=seed)


@pytest.mark.slow
def test_each_head_with_classes_is_compared(tmp_path):
    task = Shapes(**SHAPES, heads=("scene", "things", "mask"))
    teacher, run = StudentTeacher(student_of(task, 1), "teacher"), finished(tmp_path, student_of(task, 0))
    found = explain(SimpleNamespace(task=task, teacher=teacher), run)
    assert found.following is None
    scene, mask = found.heads["scene"], found.heads["mask"]
    assert (scene.of, scene.samples) == ("samples", 4)
    assert (mask.of, mask.samples) == ("cells", 4 * 16 * 16)
    raw = torch.from_numpy(task.split("validation").inputs).float()
    with torch.no_grad():
        own = student_of(task, 0).module.eval()(teacher.prepared(raw))["mask"].argmax(1)
        other = teacher.network()(teacher.prepared(raw))["mask"].argmax(1)
    assert mask.agreement == pytest.approx(float((own == other).float().mean()))
    same = explain(
        SimpleNamespace(task=task, teacher=StudentTeacher(student_of(task, 0), "same")),
        finished(tmp_path, student_of(task, 0)),
    )
    assert same.heads["mask"].agreement == same.heads["scene"].agreement == 1.0
    assert "following  mask agrees with the teacher on 100.0% of 1024 validation cells" in same.lines()
    assert max(map(len, same.lines())) <= 80


def test_heads_of_boxes_alone_are_not_compared(tmp_path):
    task = Shapes(**SHAPES, heads=("things",))
    teacher = StudentTeacher(student_of(task, 1), "teacher")
    found = explain(SimpleNamespace(task=task, teacher=teacher), finished(tmp_path, student_of(task, 0)))
    assert not found.followed
    assert "not available" in found.lines()[-1]
