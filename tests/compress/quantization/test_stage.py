"""The recipe's step: the promises of every stage, and what is special to this one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from torch import nn

from edgekd.artefacts import Backend
from edgekd.compress.quantization.stage import Quantize
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.stages import StageContext
from edgekd.students._protocol import Student
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.tasks.digits import Digits
from edgekd.testing.contracts.stage import StageContract, StageLife

ARCH = Arch.of({"width1": 8, "width2": 8, "width3": 8, "depth1": 1, "depth2": 1, "depth3": 1})
TASK = Digits()


def context(folder: Path, backend: str = "litert/xnnpack") -> StageContext:
    return StageContext(
        task=TASK,
        teacher=None,
        device=None,
        backend=Backend.model_validate(backend),
        folder=folder,
        cache=folder,
        seed=0,
        progress=lambda _: None,
        stop=lambda: False,
    )


@pytest.mark.slow
class TestQuantize(StageContract):
    @pytest.fixture(params=[{}, {"precision": "float16"}, {"train": {"epochs": 1, "precision": "float32"}}])
    def life(self, request: pytest.FixtureRequest) -> StageLife:
        return StageLife(
            stage=Quantize.model_validate({"samples": 32, **request.param}),
            other=Quantize(precision=Precision.DYNAMIC_INT8, samples=32),
            student=new_student(ResNet(), ARCH, TASK.spec, seed=0),
            context=context,
        )


def test_options_are_as_written_in_a_recipe() -> None:
    assert Quantize.model_validate({"precision": "int8"}) == Quantize()
    for wrong in ({"precision": "int7"}, {"samples": 0}, {"calibration": "entropy"}, {"percentile": 20}):
        with pytest.raises(ValidationError):
            Quantize.model_validate(wrong)


def test_options_added_later_leave_the_key_of_older_recipes() -> None:
    assert set(Quantize().model_dump(mode="json")) == {"precision", "calibration", "samples", "percentile"}
    trained = Quantize.model_validate({"train": "2 epochs"})
    assert trained == Quantize.model_validate({"train": {"epochs": 2}})
    assert trained.passes == 2
    assert trained.shortened(1).passes == 1
    assert Quantize().passes == 0
    assert len({Quantize().key("0" * 64), trained.key("0" * 64), trained.shortened(1).key("0" * 64)}) == 3


@pytest.mark.slow
def test_no_more_samples_are_used_than_asked_for(tmp_path: Path) -> None:
    student = new_student(ResNet(), ARCH, TASK.spec, seed=0)
    result = Quantize(samples=7).run(student, context(tmp_path))
    assert result.annotations.calibration == "percentile 99.99 over 7 samples"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, []),
        ({"keep_float": ["0", "3"]}, ["`0:conv` is left in float", "`3:linear` is left in float"]),
        ({"keep_float": ["3"], "precision": "float16"}, ["keep_float is for int8; the precision is float16"]),
    ],
)
def test_check_names_operators_before_any_training(options: dict[str, Any], says: list[str], tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(72, 10)).eval()
    student = Student(module=module, task=TASK.spec, family="mine", options={}, arch=Arch.of({}))
    problems = Quantize.model_validate(options).check(student, context(tmp_path))
    assert len(problems) == len(says)
    assert all(part in problem.message for part, problem in zip(says, problems, strict=True))
