"""Precisions a student can't have, with the operator that rules one out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.artefacts import Backend
from edgekd.compress.quantization.placement import float_operators
from edgekd.compress.quantization.precision_support import problems_with
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.ir.support import precisions_of
from edgekd.students._protocol import Student
from edgekd.students.graph import trace
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

SPEC = TaskSpec(name="t", input=InputSpec(shape=(2, 8, 8)), head=HeadSpec(classes=4), data="0" * 64)
ORT = Backend.model_validate("onnxruntime/cpu")


def student(*parts: nn.Module) -> Student:
    module = nn.Sequential(*parts, nn.Flatten(), nn.LazyLinear(4))
    module(torch.zeros(1, 2, 8, 8))
    return Student(module=module.eval(), task=SPEC, family="mine", options={}, arch=Arch.of({}))


class Plus(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.5


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ((nn.Conv2d(2, 3, 3), nn.Sigmoid()), "`1:sigmoid` has no integer form"),
        ((nn.Conv2d(2, 3, 3), nn.Flatten(2), nn.BatchNorm1d(3)), "`2:batch_norm` is a BatchNorm that can't be folded"),
        ((nn.Conv2d(2, 3, 3), Plus()), "`1:add` takes a constant"),
        ((nn.Conv2d(2, 3, 3), nn.Hardtanh()), "`1:hardtanh` clamps"),
        ((nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(3, 4, 2)), "`1:conv_transpose` has no integer form"),
        ((nn.ConstantPad2d(1, 2.0), nn.Conv2d(2, 3, 3)), "`0:pad` pads with 2.0"),
    ],
    ids=["sigmoid", "norm over rows", "constant", "hardtanh", "transposed", "pad"],
)
def test_what_has_no_integer_form_is_an_island(parts: tuple[nn.Module, ...], named: str) -> None:
    whole = student(*parts)
    floats = float_operators(trace(whole, decomposed=False))
    assert named in " ".join(f"`{key}` {reason}" for key, reason in floats.items())
    assert not problems_with(whole, Precision.INT8, ORT)
    assert not problems_with(whole, Precision.DYNAMIC_INT8, ORT)


def test_a_student_whose_weighted_operators_are_all_float_has_no_int8() -> None:
    problems = problems_with(student(nn.Conv2d(2, 3, 3)), Precision.INT8, ORT, keep_float=["0", "2"])
    assert [problem.message for problem in problems] == [
        "int8 on onnxruntime/cpu: `0:conv` is left in float by the recipe",
        "int8 on onnxruntime/cpu: `2:linear` is left in float by the recipe",
    ]
    assert "dynamic-int8" in problems[0].remedy


@pytest.mark.parametrize("precision", precisions_of(ORT))
def test_what_has_integer_forms_can_have_every_precision(precision: Precision) -> None:
    parts = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU6(), nn.MaxPool2d(2), nn.Dropout(), nn.AdaptiveAvgPool2d(1)
    assert not problems_with(student(*parts), precision, ORT)


def test_a_student_without_weights_has_no_integer_precision() -> None:
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    bare = Student(module=module, task=SPEC, family="mine", options={}, arch=Arch.of({}))
    assert problems_with(bare, Precision.DYNAMIC_INT8)


def test_weights_too_large_for_half_precision_are_named() -> None:
    big = student(nn.Conv2d(2, 3, 3))
    with torch.no_grad():
        big.module.get_parameter("0.weight").fill_(1e5)
    assert "`0.weight`" in problems_with(big, Precision.FLOAT16)[0].message
