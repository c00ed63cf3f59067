"""Every loss, with every kind of head that is not one of classes: it trains, or says before training why it can't."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from edgekd import plugins
from edgekd.distill.losses._protocol import FeatureLoss
from edgekd.distill.stage import Distill
from edgekd.records import digest_json
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.tasks._protocol import Task, TaskSpec
from edgekd.tasks.one_head import OneHead
from edgekd.tasks.shapes import Shapes
from edgekd.teachers.packing import layout_of, packed
from edgekd.testing.fakes.spots import LABELS, NUMBERS, SpotTask

pytestmark = pytest.mark.slow

LOSSES = plugins.names("edgekd.losses")
SHAPES = Shapes(train=8, test=1, validation=1, calibration=1, side=32)
TASKS: dict[str, Task] = {
    "all three": SHAPES,
    "things": OneHead(SHAPES, "things"),
    "mask": OneHead(SHAPES, "mask"),
    "labels": SpotTask([LABELS]),
    "numbers": SpotTask([NUMBERS]),
}
FAMILY = ResNet.model_validate({"space": {"width": [8, 8], "depth": [1, 1]}})


class HeadsNetwork:
    """A teacher with the heads of a task, untrained, that can be looked into."""

    name = "heads"

    def __init__(self, spec: TaskSpec) -> None:
        torch.manual_seed(5)
        self._network = FAMILY.build(FAMILY.space(spec).at(0), spec).eval().requires_grad_(False)
        self.layout = layout_of(self._network(torch.zeros((1, *spec.input.shape))))
        self.classes = sum(part.size for part in self.layout)

    def digest(self) -> str:
        return digest_json([self.name, [part.name for part in self.layout]])

    def network(self) -> nn.Module:
        return self._network

    def prepared(self, batch: Tensor) -> Tensor:
        return (batch - 128) / 64

    def rows(self, answers: Mapping[str, Tensor]) -> Tensor:
        return packed(answers)

    def logits(self, batch: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.rows(self._network(self.prepared(batch))).clone()


@pytest.mark.parametrize("which", TASKS)
@pytest.mark.parametrize("loss", LOSSES)
def test_trains_or_says_why_not(loss, which, context, tmp_path):
    task = TASKS[which]
    student = new_student(FAMILY, FAMILY.space(task.spec).at(0), task.spec, seed=0)
    stage = Distill(loss={loss: {}}, epochs=1, batch_size=4, views=1, precision="float32")
    given = context(tmp_path, task=task, teacher=HeadsNetwork(task.spec))
    problems, kind = stage.check(student, given), plugins.load("edgekd.losses", loss)
    misplaced = issubclass(kind, FeatureLoss) and (loss == "simkd" or "stage" not in kind().points)
    formless = loss == "mlkd" or (loss == "dkd" and which != "mask")
    assert bool(problems) == (misplaced or formless)
    if problems:
        assert all(problem.message.startswith(f"distill: {loss}: ") and problem.remedy for problem in problems)
        return
    trained = stage.run(student, given)
    before, after = student.module.state_dict(), trained.module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert any(not torch.equal(after[name], tensor) for name, tensor in before.items() if tensor.is_floating_point())
