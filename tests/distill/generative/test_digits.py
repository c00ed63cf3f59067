"""Real digits, a teacher that was trained on them, and a student that never sees one."""

from __future__ import annotations

import pytest
import torch

from edgekd.distill.generative.data_free import DataFree
from edgekd.distill.predict import predict
from edgekd.ir.space import Arch
from edgekd.recipes.teach import TrainedTeacher
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.tasks.digits import Digits
from edgekd.testing.fakes.withheld import Withheld

pytestmark = pytest.mark.slow  # a minute of one core


def test_nine_of_ten_digits_are_right_without_any_training_image(context, tmp_path, session_cache):
    task = Digits()
    teacher = TrainedTeacher(width=32, epochs=20).prepare(task, session_cache)
    widths, depths = [16, 32, 64], [1, 1, 1]
    family = ResNet.model_validate({"space": {"widths": widths, "depths": depths}})
    arch = Arch.of(
        {f"{name}{at + 1}": value[at] for name, value in (("width", widths), ("depth", depths)) for at in range(3)}
    )
    given = context(tmp_path, task=Withheld(task), teacher=teacher)  # it raises where it is asked for `train`
    stage = DataFree(epochs=15, rounds=15, batch_size=64)
    student = stage.run(new_student(family, arch, task.spec, seed=0), given)
    test = task.split("test")
    taught = task.score(teacher.logits(torch.from_numpy(test.inputs).float()).numpy(), test.labels).value
    learned = task.score(predict(student.module, test.inputs, task.spec), test.labels).value
    assert taught > 0.95
    assert learned >= 0.90, f"the teacher is right on {taught:.1%}, the student on {learned:.1%}"
