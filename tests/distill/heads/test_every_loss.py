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
from edgekd.students._protocol import Family
from edgekd.students.mobilenet import MobileNet
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.tasks._protocol import Task, TaskSpec
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
from torch.nn import functional

class Own(nn.Module):
    def __init__(self, vectors=(), maps=()):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ELU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ELU())
        self.vectors = nn.ModuleList(nn.Linear(8, size) for size in vectors)
        self.maps = nn.ModuleList(nn.Conv2d(8, size, 1) for size in maps)

    def forward(self, images):
        features = self.trunk(images)
        pooled = features.mean((2, 3))
        return tuple(head(pooled) for head in self.vectors) + tuple(head(features) for head in self.maps)

def all_three():
    return Own(vectors=[3], maps=[3, 4, 4])

def things():
    return Own(maps=[3, 4])

def mask():
    return Own(maps=[4])

def labels():
    return Own(vectors=[3])

def numbers():
    return Own(vectors=[2])
"""


class HeadsLogits:
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


class HeadsNetwork(HeadsLogits):
    """The same, that can be looked into."""

    def network(self) -> nn.Module:
        return self._network

    def prepared(self, batch: Tensor) -> Tensor:
        return (batch - 128) / 64

    def rows(self, answers: Mapping[str, Tensor]) -> Tensor:
        return packed(answers)


SMALL = {"space": {"width": [8, 8], "depth": [1, 1]}, "stages": 3}  # as coarse as the teacher
TOKENS = {"space": {"depth": [2, 2], "heads": [1, 1], "width": [16, 16], "mlp_ratio": [2, 2], "head_width": 8}}
TEACHERS = {"network": HeadsNetwork, "logits alone": HeadsLogits, "none": lambda spec: None}


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    folder, models = tmp_path_factory.mktemp("own"), {}
    (folder / "own_of_heads.py").write_text(OWN)
    exec(OWN, models)

    def of_task(family: str, which: str, **options: object) -> Family:
        function = which.replace(" ", "_")
        torch.manual_seed(0)
        weights = {name: value.numpy() for name, value in models[function]().state_dict().items()}
        np.savez(folder / f"{function}.npz", **weights)
        options |= {"model": f"own_of_heads.py:{function}", "weights": f"{function}.npz"}
        return plugins.load("edgekd.families", family).model_validate(options, context={"folder": folder})

    return {
        "resnet": FAMILY,
        "mobilenet": MOBILE,
        "dscnn": plugins.load("edgekd.families", "dscnn").model_validate(SMALL),
        "transformer": plugins.load("edgekd.families", "transformer").model_validate(TOKENS),
        "pruned": {which: of_task("pruned", which, ratios=[0.5, 1.0], round_to=1) for which in TASKS},
        "own": {which: of_task("own", which) for which in TASKS},
    }


def reasons(kind, spec: TaskSpec, whose: str) -> set[str]:
    """Words of all that is to be said of a loss, by its own attributes."""
    found: set[str] = set()
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
def test_a_persons_own_model_answers_for_every_head(which, families):
    spec = TASKS[which].spec
    images = torch.from_numpy(spec.input.random(0, 2))
    for family in (families["pruned"][which], families["own"][which]):
        module = family.build(family.original(spec), spec)
        given = FAMILY.build(FAMILY.space(spec).at(0), spec)(images)
        answers = module(images)
        assert list(answers) == list(given)
        assert [answer.shape[:2] for answer in answers.values()] == [answer.shape[:2] for answer in given.values()]
        halved = [axis for axis in family.space(spec).axes if axis.name.startswith("keep")]
        assert bool(halved) == (family.name == "pruned")
    other = next(name for name in TASKS if name not in (which, "all three"))
    with pytest.raises(ConfigurationError, match=r"where .* expected"):
        families["own"][other].space(SHAPES.spec)


def test_a_student_of_other_heads_is_refused(families, context, tmp_path):
    spec = TASKS["mask"].spec
    student = new_student(families["own"]["mask"], families["own"]["mask"].space(spec).at(0), spec, seed=0)
    stage = Distill(loss={"ce": {}}, epochs=1)
    (problem,) = stage.check(student, context(tmp_path, task=SHAPES))
    assert "the student was built for other heads" in problem.message


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
    family = family[which] if name == "pruned" else family
    student = new_student(family, family.space(task.spec).at(0), task.spec, seed=0)
    stage = Distill(loss={loss: {}}, epochs=1, batch_size=4, views=1, precision="float32")
    given = context(tmp_path, task=task, teacher=TEACHERS[whose](task.spec))
    problems, kind = stage.check(student, given), plugins.load("edgekd.losses", loss)
    expected = reasons(kind, task.spec, whose)
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
    changed = [
        name for name, value in before.items() if value.is_floating_point() and not torch.equal(after[name], value)
    ]
    assert changed or family.inherits  # a trained model is kept as it came where no epoch scores higher
