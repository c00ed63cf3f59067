"""Every loss, with every family, under every kind of teacher: it trains, or says before training why it can't."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest
import torch

from edgekd import plugins
from edgekd.distill.curve import read_curve
from edgekd.distill.losses._protocol import FeatureLoss
from edgekd.distill.stage import Distill
from edgekd.errors import ConfigurationError
from edgekd.students.student import has_inherited, load_student, new_student, save_student
from edgekd.testing.fakes.bars import BarTeacher, OpenBarTeacher

LOSSES = plugins.names("edgekd.losses")
TEACHERS = {"network": OpenBarTeacher, "logits alone": BarTeacher, "none": lambda: None}
OWN = """
from torch import nn

def pooled():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3),
    )

def flattened():  # no pooling between the last map and the classifier
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3)
    )
"""
FAMILIES = {
    "resnet": ("resnet", {"space": {"width": [8, 8], "depth": [1, 1]}, "stages": 2}),
    "mobilenet": ("mobilenet", {"space": {"width": [8, 8], "depth": [1, 1], "expansion": 2}, "stages": 2}),
    "dscnn": ("dscnn", {"space": {"width": [8, 8], "depth": [1, 1]}, "stages": 2}),
    "transformer": (
        "transformer",
        {"space": {"depth": [2, 2], "heads": [1, 1], "width": [16, 16], "mlp_ratio": [2, 2], "head_width": 8}},
    ),
    "pruned": ("pruned", {"model": "own_models.py:pooled", "weights": "pooled.npz", "ratios": [0.5, 1.0]}),
    "own": ("own", {"model": "own_models.py:pooled", "weights": "pooled.npz"}),
    "pruned without pooling": (
        "pruned",
        {"model": "own_models.py:flattened", "weights": "flattened.npz", "ratios": [0.5, 1.0]},
    ),
}


@pytest.fixture(scope="module")
def students(tmp_path_factory):
    from edgekd.testing.fakes.bars import BarTask

    folder = tmp_path_factory.mktemp("own")
    (folder / "own_models.py").write_text(textwrap.dedent(OWN))
    models: dict = {}
    exec(OWN, models)
    for name in ("pooled", "flattened"):
        weights = {key: value.numpy() for key, value in models[name]().state_dict().items()}
        np.savez(folder / f"{name}.npz", **weights)
    made = {}
    for name, (family, options) in FAMILIES.items():
        found = plugins.load("edgekd.families", family).model_validate(options, context={"folder": folder})
        spec = BarTask().spec
        made[name] = new_student(found, found.space(spec).at(0), spec, seed=0)
    return made


def test_no_family_is_left_out():
    assert {family for family, _ in FAMILIES.values()} == set(plugins.names("edgekd.families"))


@pytest.mark.slow
@pytest.mark.parametrize("whose", TEACHERS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("loss", LOSSES)
def test_trains_or_says_why_not(loss, family, whose, students, context, tmp_path):
    student, teacher = students[family], TEACHERS[whose]()
    stage = Distill(loss={loss: {}}, epochs=1, batch_size=32, views=1, precision="float32")
    given = context(tmp_path, teacher=teacher)
    problems = stage.check(student, given)
    kind = plugins.load("edgekd.losses", loss)
    looks_inside = issubclass(kind, FeatureLoss)
    if kind.needs_teacher and (teacher is None or (looks_inside and whose != "network")):
        assert problems
    if not looks_inside and not (kind.needs_teacher and teacher is None):
        assert not problems
    if problems:
        assert all(problem.message.startswith("distill: ") and problem.remedy for problem in problems)
        with pytest.raises(ConfigurationError):
            stage.run(student, given)
        assert not (tmp_path / "stage").exists(), "it began to train"
        return
    trained = stage.run(student, given)
    assert trained.module.state_dict().keys() == student.module.state_dict().keys()
    moved = [
        not torch.equal(tensor, student.module.state_dict()[name])
        for name, tensor in trained.module.state_dict().items()
        if tensor.is_floating_point()
    ]
    # trained weights are kept as they came where the epoch was worse, and their network learns all the same
    (epoch,) = read_curve(tmp_path / "stage")
    assert any(moved) or (has_inherited(student) and epoch.validation is not None)
    assert all(torch.isfinite(tensor).all() for tensor in trained.module.state_dict().values())
    save_student(trained, tmp_path / "saved")
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(load_student(tmp_path / "saved").module(images), trained.module(images))


@pytest.mark.slow
def test_what_fits_a_network_is_not_refused(students, context, tmp_path):
    """Or the test above could pass by refusals alone."""
    given = context(tmp_path, teacher=OpenBarTeacher())
    fitting = {
        family: [loss for loss in LOSSES if not Distill(loss={loss: {}}).check(student, given)]
        for family, student in students.items()
    }
    assert fitting["resnet"] == fitting["mobilenet"] == fitting["pruned"] == fitting["own"] == list(LOSSES)
    assert set(LOSSES) - set(fitting["pruned without pooling"]) == {"simkd"}
