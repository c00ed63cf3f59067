"""Every loss, with every family, kind of head and kind of teacher: it trains, or says before training why it can't.

One head of classes is in ``tests/distill/test_every_loss.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd import plugins
from edgekd.distill.losses._protocol import FeatureLoss, OfLabels, OfNumbers
from edgekd.distill.stage import Distill
from edgekd.errors import ConfigurationError
from edgekd.records import digest_json
from edgekd.students.mobilenet import MobileNet
from edgekd.students.own import Own
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.tasks._protocol import HeadSpec, Task, TaskSpec
from edgekd.tasks.one_head import OneHead
from edgekd.tasks.shapes import Shapes
from edgekd.teachers.packing import packed, packing_of
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
MOBILE = MobileNet.model_validate({"space": {"width": [8, 8], "depth": [1, 1], "expansion": 2}})
FORMS = {"detection": OfLabels, "multilabel": OfLabels, "regression": OfNumbers}
OWN = """
from torch import nn

def own():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 3),
    )
"""


class HeadsTold:
    """A teacher with the heads of a task, untrained, that gives its answers alone."""

    name = "heads"

    def __init__(self, spec: TaskSpec) -> None:
        torch.manual_seed(5)
        self._network = FAMILY.build(FAMILY.space(spec).at(0), spec).eval().requires_grad_(False)
        self.packing = packing_of(self._network(torch.zeros((1, *spec.input.shape))))
        self.classes = sum(part.size for part in self.packing)

    def digest(self) -> str:
        return digest_json([self.name, [part.name for part in self.packing]])

    def logits(self, batch: Tensor) -> Tensor:
        with torch.inference_mode():
            return packed(self._network((batch - 128) / 64)).clone()


class HeadsNetwork(HeadsTold):
    """The same, that can be looked into."""

    def network(self) -> nn.Module:
        return self._network

    def prepared(self, batch: Tensor) -> Tensor:
        return (batch - 128) / 64

    def rows(self, answers: Mapping[str, Tensor]) -> Tensor:
        return packed(answers)


SMALL = {"space": {"width": [8, 8], "depth": [1, 1]}, "stages": 3}  # as coarse as the teacher
TOKENS = {"space": {"depth": [2, 2], "heads": [1, 1], "width": [16, 16], "mlp_ratio": [2, 2], "head_width": 8}}
TEACHERS = {"network": HeadsNetwork, "logits alone": HeadsTold, "none": lambda spec: None}


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    folder, models = tmp_path_factory.mktemp("own"), {}
    (folder / "own_of_heads.py").write_text(OWN)
    exec(OWN, models)
    np.savez(folder / "own.npz", **{name: value.numpy() for name, value in models["own"]().state_dict().items()})
    own = {"model": "own_of_heads.py:own", "weights": "own.npz", "ratios": [0.5, 1.0], "round_to": 1}
    return {
        "resnet": FAMILY,
        "mobilenet": MOBILE,
        "dscnn": plugins.load("edgekd.families", "dscnn").model_validate(SMALL),
        "transformer": plugins.load("edgekd.families", "transformer").model_validate(TOKENS),
        "pruned": plugins.load("edgekd.families", "pruned").model_validate(own, context={"folder": folder}),
        "own": Own.model_validate({name: own[name] for name in ("model", "weights")}, context={"folder": folder}),
    }


def reasons(kind, spec: TaskSpec, whose: str, fits: bool) -> set[str]:
    """Words of all that is to be told of a loss, by what it says of itself."""
    found = set() if fits else {"the student was built for other heads"}
    if kind.needs_teacher and whose == "none":
        found.add("needs a teacher")
    if not issubclass(kind, FeatureLoss):
        for head in spec.heads if kind.needs_teacher else ():
            if not issubclass(kind, FORMS.get(head.kind, kind)):
                found.add(f"it has no form for the {head.kind} head `{head.name}`")
            elif kind.every_pair and head.kind == "segmentation":
                found.add(f"for the segmentation head `{head.name}` every cell is an output")
    elif found:
        return found  # where it would look is asked last
    elif whose != "network":
        found.add("provides only logits")
    elif kind.adds_layers:
        found.add("no linear layer at its end")
    elif kind().points in ("penultimate", "logits"):  # heads have none in common
        found.add("matches no points")
    return found


def test_no_family_is_left_out(families):
    assert set(families) == set(plugins.names("edgekd.families"))


@pytest.mark.parametrize("which", TASKS)
@pytest.mark.parametrize("name", ["pruned", "own"])
def test_a_persons_own_model_has_one_head_of_classes(name, which, families):
    with pytest.raises(ConfigurationError, match="models of one classification head"):
        families[name].space(TASKS[which].spec)


NAMES = ("resnet", "mobilenet", "dscnn", "transformer", "pruned")
CASES = [
    (loss, name, which, whose)
    for row, loss in enumerate(LOSSES)
    for column, name in enumerate(NAMES)
    for layer, which in enumerate(TASKS)
    for turn, whose in enumerate(TEACHERS)
    if name == "resnet" or (row + column + layer + turn) % len(TEACHERS) == 0
]
"""Every pair of loss, family, task and teacher; of `resnet` every combination."""


@pytest.mark.parametrize(("loss", "name", "which", "whose"), CASES)
def test_trains_or_says_why_not(loss, name, which, whose, families, context, tmp_path):
    task, family = TASKS[which], families[name]
    built_for = task.spec if name != "pruned" else task.spec.but(head=HeadSpec(classes=3), more=())
    student = new_student(family, family.space(built_for).at(0), built_for, seed=0)
    stage = Distill(loss={loss: {}}, epochs=1, batch_size=4, views=1, precision="float32")
    given = context(tmp_path, task=task, teacher=TEACHERS[whose](task.spec))
    problems, kind = stage.check(student, given), plugins.load("edgekd.losses", loss)
    expected = reasons(kind, task.spec, whose, fits=name != "pruned")
    assert len(problems) == len(expected)
    assert all(any(words in problem.message for problem in problems) for words in expected)
    if problems:
        assert all(problem.message.startswith("distill: ") and problem.remedy for problem in problems)
        with pytest.raises(ConfigurationError):
            stage.run(student, given)
        assert not (tmp_path / "stage").exists(), "it began to train"
        return
    trained = stage.run(student, given)
    before, after = student.module.state_dict(), trained.module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    assert any(not torch.equal(after[name], tensor) for name, tensor in before.items() if tensor.is_floating_point())
