"""Quantization-aware training: it computes as the integers do, learns, and its scales are those of the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import numpy_helper

from edgekd.compress.quantization.calibrate import calibrate
from edgekd.compress.quantization.fake import FakeQuantized
from edgekd.compress.quantization.reference import reference_module
from edgekd.compress.quantization.stage import Quantize
from edgekd.distill.predict import validator
from edgekd.distill.stage import Distill
from edgekd.export._protocol import ExportOptions
from edgekd.export.onnx.exporter import onnx_model
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.stages import StageContext
from edgekd.students._protocol import Student
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.tasks.digits import Digits
from edgekd.teachers.normalise import normalised

pytestmark = pytest.mark.slow

TASK = Digits(train_limit=512)
ARCH = Arch.of({"width1": 8, "width2": 8, "width3": 8, "depth1": 1, "depth2": 1, "depth3": 1})


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StageContext:
    folder = tmp_path_factory.mktemp("training")
    return StageContext(
        task=TASK, teacher=None, device=None, backend=None, folder=folder / "float", cache=folder, seed=0,
        progress=lambda _: None, stop=lambda: False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def student(context: StageContext) -> Student:
    """Trained in float."""
    stage = Distill.model_validate({"loss": {"ce": {}}, "epochs": 6, "ema": 0, "precision": "float32"})
    return stage.run(new_student(ResNet(), ARCH, TASK.spec, seed=0), context)


def answers(module: torch.nn.Module, count: int = 64) -> torch.Tensor:
    images = torch.from_numpy(np.ascontiguousarray(TASK.split("validation").inputs[:count]))
    with torch.no_grad():
        return module.eval()(normalised(images, TASK.spec.input.mean, TASK.spec.input.std))


def test_it_computes_as_the_integers_do(student: Student) -> None:
    calibrated = calibrate(student, TASK.split("calibration").inputs[:64], Precision.INT8, keep_float=("blocks.1",))
    learning = FakeQuantized(calibrated)
    steps = (answers(learning) - answers(reference_module(calibrated))).abs() / calibrated.annotations.activations[
        "head:linear"
    ].scale[0]
    assert float(steps.max()) < 3.5  # ties: the order of sums, and biases in float
    assert float(steps.mean()) < 0.5
    again, before = learning.student().annotations, calibrated.annotations
    for ours, theirs in ((again.weights, before.weights), (again.activations, before.activations)):
        assert ours.keys() == theirs.keys()
        for name, encoding in theirs.items():
            assert ours[name].scale == pytest.approx(encoding.scale, rel=1e-5)  # steps are logarithms meanwhile
            assert ours[name].but(scale=encoding.scale) == encoding


def test_training_wins_back_what_few_bits_lose_and_the_file_has_what_was_learned(
    student: Student, context: StageContext, tmp_path: Path
) -> None:
    score = validator(TASK)
    assert score is not None
    without = Quantize(weight_bits=2, samples=64).run(student, context)
    stage = Quantize.model_validate({"weight_bits": 2, "samples": 64, "train": {"epochs": 6, "ema": 0}})
    after = stage.run(student, replace(context, folder=tmp_path))
    lost, won = (score(reference_module(each)).value for each in (without, after))
    assert won > lost + 0.05
    assert after.annotations.weights != without.annotations.weights
    assert after.annotations.activations != without.annotations.activations
    assert after.annotations.activations["input"] == without.annotations.activations["input"]
    stored = {t.name: numpy_helper.to_array(t) for t in onnx_model(after, ExportOptions()).graph.initializer}
    for name, encoding in after.annotations.weights.items():
        assert np.array_equal(stored[f"{name}/scale"], np.asarray(encoding.scale, np.float32))
        assert int(np.abs(stored[f"{name}/int"]).max()) <= 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"precision": "float16", "train": {"epochs": 1}}, "train is for int8"),
        ({"precision": "float16", "weight_bits": 4}, "no integer weights"),
        ({"train": {"epochs": 1, "freeze": ["stem"]}}, "only its graph"),
    ],
)
def test_what_cant_be_trained_is_a_problem(
    student: Student, context: StageContext, options: dict[str, object], says: str
) -> None:
    problems = Quantize.model_validate(options).check(student, context)
    assert any(says in problem.message for problem in problems)
