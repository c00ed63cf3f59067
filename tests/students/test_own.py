"""The family of one arch: a model as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd import plugins
from edgekd.compress.pruning.family import Pruned
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.errors import ConfigurationError
from edgekd.ir.numerics import Precision
from edgekd.students.own import Own, classes_of
from edgekd.students.student import load_student, new_student, save_student
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.testing.contracts.family import FamilyContract

OWN = Path(__file__).parents[2] / "examples" / "own_model"


def family() -> Own:
    return Own.model_validate(
        {"model": "my_model.py:build", "weights": "my_model.safetensors"}, context={"folder": OWN}
    )


@pytest.fixture
def spec() -> TaskSpec:
    return TaskSpec(name="digits", input=InputSpec(shape=(1, 8, 8)), head=HeadSpec(classes=10), data="0" * 64)


class TestOwn(FamilyContract):
    @pytest.fixture
    def make_family(self):
        return family

    @pytest.fixture
    def spec(self, spec):
        return spec


def test_it_is_found_by_its_name():
    assert plugins.load("edgekd.families", "own") is Own


def test_a_student_is_the_model_with_its_weights_and_is_read_back(spec, tmp_path):
    found = family()
    student = new_student(found, found.original(spec), spec, 3)
    save_student(student, tmp_path)
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(load_student(tmp_path).module(images), found.module()(images))


def test_another_number_of_classes_is_refused(spec):
    with pytest.raises(ConfigurationError, match="has 10 classes, and task `digits` has 4"):
        family().space(spec.but(head=HeadSpec(classes=4)))


@pytest.mark.parametrize("options", [{}, {"program": "a.pt2", "weights": "a.pt2"}])
def test_one_model_is_wanted(options, tmp_path):
    (tmp_path / "a.pt2").touch()
    with pytest.raises(ValueError, match=r"one of them|leave `weights` out"):
        Own.model_validate(options, context={"folder": tmp_path})


def test_weights_of_another_content_are_another_family(spec, tmp_path):
    for name in ("my_model.py", "my_model.safetensors"):
        shutil.copyfile(OWN / name, tmp_path / name)
    before = Own.model_validate({"model": "my_model.py:build"}, context={"folder": tmp_path}).digest()
    assert before != family().digest()


class Drawing(nn.Module):
    """A classic mistake: dropout as a function drops by default, also in eval mode."""

    def __init__(self, training: bool | None) -> None:
        super().__init__()
        self.fc, self.asked = nn.Linear(64, 10), training

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(nn.functional.dropout(x.flatten(1), 0.5, self.training if self.asked is None else self.asked))


def test_a_model_that_draws_in_eval_mode_is_refused_by_that_name():
    given = InputSpec(shape=(1, 8, 8))
    with pytest.raises(ConfigurationError, match="answers the same images differently each time"):
        classes_of(Drawing(training=True).eval(), given, "net")
    assert classes_of(Drawing(training=None).eval(), given, "net") == 10


@pytest.mark.parametrize("kind", [Own, Pruned])
def test_a_family_refuses_a_model_that_draws_before_anything_is_compared(kind, spec, tmp_path):
    (tmp_path / "draws.py").write_text(
        f"import sys; sys.path.insert(0, {str(OWN.parents[1])!r})\n"
        "import torch\nfrom tests.students.test_own import Drawing\n"
        "def build():\n    torch.manual_seed(0)\n    return Drawing(training=True)\n"
    )
    drawing = kind.model_validate({"model": "draws.py:build"}, context={"folder": tmp_path})
    with pytest.raises(ConfigurationError, match="`draws:build` answers the same images differently each time"):
        drawing.space(spec)


TWINS = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    one, two = nn.Linear(64, 64), nn.Linear(64, 64)
    two.weight.data.copy_(one.weight)
    return nn.Sequential(nn.Flatten(), one, nn.ReLU(), two, nn.ReLU(), nn.Linear(64, 10))
"""


def test_layers_with_equal_weights_are_one_in_8_bits_and_are_read_back(spec, tmp_path):
    (tmp_path / "twins.py").write_text(TWINS)
    found = Own.model_validate({"model": "twins.py:build"}, context={"folder": tmp_path})
    student = calibrate(
        new_student(found, found.original(spec), spec, 0),
        np.random.default_rng(0).integers(0, 255, (8, 1, 8, 8), np.uint8),
        Precision.INT8,
        "minmax",
    )
    assert student.module[1].weight is student.module[3].weight
    save_student(student, tmp_path / "saved")
    loaded = load_student(tmp_path / "saved").module
    assert loaded[1].weight is loaded[3].weight
    assert torch.equal(loaded[3].weight, student.module[3].weight)
