"""Pictures that carry some heads' labels or none, and a teacher a head: what nobody labelled is learned from them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from edgekd.distill.curve import read_curve
from edgekd.distill.stage import Distill
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.tasks.rows import has_label
from edgekd.tasks.shapes import Shapes
from edgekd.teachers.binding import bind
from edgekd.teachers.heads import HeadsTeacher
from edgekd.teachers.packing import unpacked

pytestmark = pytest.mark.slow

COLOURS = """
import torch
from torch import nn
from torch.nn import functional

class Colours(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, x):
        return self.head(4 * functional.avg_pool2d(x, 4))

def scene():
    return Colours(lambda cells: cells.mean((2, 3)))

def things():
    return Colours(lambda cells: (cells, torch.ones(len(cells), 4, *cells.shape[2:])))

def mask():
    return Colours(lambda cells: functional.pad(cells, (0, 0, 0, 0, 1, 0)))
"""
NOBODY = 1e-9  # so small a share that no picture is drawn
FAMILY = ResNet.model_validate({"space": {"width": [8, 8], "depth": [1, 1]}})
STAGE = {
    "loss": {"kd": {"weight": 0.9}},
    "epochs": 8,
    "batch_size": 8,
    "learning_rate": 0.02,
    "precision": "float32",
    "ema": 0.0,
}


@pytest.fixture
def labelled_in_part(context, tmp_path):
    """A function to a student and a stage's context, pictures labelled in part, with teachers of some heads."""

    def made(labelled: float, *heads: str):
        task = Shapes(train=32, test=1, validation=4, calibration=1, side=32, labelled=labelled)
        (tmp_path / "colours.py").write_text(COLOURS)
        of = {head: {"kind": "torch", "module": f"colours:{head}"} for head in heads}
        teacher = HeadsTeacher.model_validate({"of": of}, context={"folder": tmp_path})
        student = new_student(FAMILY, FAMILY.space(task.spec).at(0), task.spec, seed=0)
        return student, context(tmp_path, task=task, teacher=bind(teacher, task.spec))

    return made


def distances(student, given) -> dict[str, float]:
    """How far a student's answers are from each teacher's, in the pictures without that head's label."""
    train, found = given.task.split("train"), {}
    raw = torch.from_numpy(train.inputs).float()
    taught = unpacked(given.teacher.logits(raw), given.teacher.packing)
    mean, std = student.task.input.mean[0], student.task.input.std[0]
    with torch.no_grad():
        own = student.module((raw - mean) / std)
    for head in student.task.heads:
        alone = torch.from_numpy(~has_label(head, train.labels[head.name]))
        assert alone.any()
        if head.kind == "detection":
            name = f"{head.name}.heat"
            apart = functional.binary_cross_entropy_with_logits(own[name][alone], taught[name][alone].sigmoid())
        else:
            apart = functional.cross_entropy(own[head.name][alone], taught[head.name][alone].softmax(1))
        found[head.name] = float(apart)
    return found


@pytest.mark.parametrize("balance", ["none", "uncertainty", "gradnorm"])
@pytest.mark.parametrize("labelled", [0.5, NOBODY])
def test_what_nobody_labelled_is_learned_from_the_teachers(labelled_in_part, labelled, balance):
    student, given = labelled_in_part(labelled, "scene", "things", "mask")
    trained = Distill.model_validate({**STAGE, "balance": balance}).run(student, given)
    assert all(torch.isfinite(tensor).all() for tensor in trained.module.state_dict().values())
    for point in read_curve(given.folder):
        assert set(point.shares) == {"scene", "things", "mask"}
        assert min(point.shares.values()) > 0.01  # every head pulls at the weights
    before, after = distances(student, given), distances(trained, given)
    assert all(after[head] < 0.97 * before[head] for head in before)


def test_a_head_with_neither_labels_nor_teacher_is_left_alone(labelled_in_part):
    student, given = labelled_in_part(NOBODY, "things")
    trained = Distill.model_validate({**STAGE, "weight_decay": 0.0}).run(student, given)
    assert all(point.shares == {"scene": 0.0, "things": 1.0, "mask": 0.0} for point in read_curve(given.folder))
    before, after = student.module.state_dict(), trained.module.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    alone = ("heads.heads.0.", "heads.heads.2.")
    assert all(torch.equal(tensor, after[name]) == name.startswith(alone) for name, tensor in before.items())
