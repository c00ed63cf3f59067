"""Counts against sums done by hand and by folding."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch, Axis, Space
from edgekd.students._protocol import CutArch, Cuttable, Student
from edgekd.students.analysis import analyse, analyse_arch, kernels_of, why_one_by_one
from edgekd.students.fold import folded
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

SPEC = TaskSpec(name="t", input=InputSpec(shape=(3, 8, 8)), head=HeadSpec(classes=4), data="0" * 64)
ARCH = Arch.of({"width1": 8, "width2": 16, "width3": 24, "depth1": 1, "depth2": 2, "depth3": 1})


class Small(nn.Module):
    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.other = nn.Conv2d(5, 5, 1)
        self.relu, self.fc = nn.ReLU(inplace=inplace), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn(self.conv(x)))
        return self.fc(torch.flatten((self.other(y) + y).mean((2, 3), keepdim=True), 1))


def small(inplace: bool = False) -> Student:
    return Student(module=Small(inplace).eval(), task=SPEC, family="mine", options={}, arch=Arch.of({}))


def test_counts_by_hand() -> None:
    found = analyse(small(), Precision.FLOAT32)
    weights, biases = 5 * 3 * 9 + 5 * 5 + 4 * 5, 5 + 5 + 4
    assert found.parameters == weights + biases
    assert found.macs == 64 * 5 * 27 + 64 * 5 * 5 + 20
    assert found.weight_bytes == 4 * (weights + biases)
    assert found.peak_activation_bytes == 4 * 3 * 5 * 64  # y, the second convolution's result, and the sum
    assert found.depth == 5
    moved = (192 + 320) + (320 + 320) + (3 * 320) + (320 + 5) + (5 + 4)
    assert found.bytes_moved == 4 * moved + found.weight_bytes
    integer = analyse(small(), Precision.INT8)
    assert integer.weight_bytes == weights + 4 * biases + 4 * (5 + 5 + 4)  # a scale a channel
    assert integer.peak_activation_bytes * 4 == found.peak_activation_bytes


def test_style_and_folding_dont_change_counts() -> None:
    expected = analyse(small(), Precision.INT8)
    assert analyse(small(inplace=True), Precision.INT8) == expected
    assert analyse(folded(small()), Precision.INT8) == expected


class Attending(nn.Module):
    """A linear layer over 64 rows, and products of two tensors behind a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.row, self.fc = nn.Linear(3, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.row(x.flatten(2).transpose(1, 2))
        return self.fc((torch.bmm(rows, rows.transpose(1, 2)).softmax(-1) @ rows).mean(1))


def test_weights_of_a_layer_are_counted_once_however_many_rows_it_sees() -> None:
    kernels = kernels_of(small().but(module=Attending().eval()))
    assert [kernel.weights for kernel in kernels if kernel.kind == "dense"] == [15, 0, 0, 20]
    assert sum(kernel.weights for kernel in kernels) == 35


def test_products_of_two_activations_are_matrix_products_without_weights() -> None:
    kernels = kernels_of(small().but(module=Attending().eval()))
    assert [kernel.macs for kernel in kernels if kernel.kind == "dense"] == [64 * 15, 64 * 64 * 5, 64 * 64 * 5, 20]
    assert Counter(kernel.kind for kernel in kernels)["pool"] == 1  # the mean; softmax is none
    assert analyse(small().but(module=Attending().eval()), Precision.INT8).weight_bytes == 35 + 4 * 9 + 4 * 9


class Strided(nn.Module):
    """A linear layer over the columns of an image, which torch computes as one batched product with its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Linear(64, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.bmm(x.flatten(2), self.row.weight.t().expand(x.shape[0], 64, 6)).mean(1)


def test_a_weight_is_one_in_a_batched_product_too() -> None:
    found = analyse(small().but(module=Strided().eval()), Precision.INT8)
    assert (found.parameters, found.macs) == (64 * 6, 3 * 64 * 6)
    assert found.weight_bytes == 64 * 6 + 4 * 6  # and a scale for each of the six


class Widening(nn.Module):
    """A transposed convolution, its result bounded from above, and the larger of two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm = nn.ConvTranspose2d(3, 5, 2, stride=2, bias=False), nn.BatchNorm2d(5)
        self.fc = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.up(x)).clamp_max(6.0)
        return self.fc(torch.maximum(y, y.sigmoid()).cumsum(1).mean((2, 3)))


def test_a_transposed_convolution_has_its_window_at_each_place_of_its_source() -> None:
    kernels = kernels_of(small().but(module=Widening().eval()))
    assert (kernels[0].kind, kernels[0].macs, kernels[0].weights) == ("conv", 64 * 3 * 5 * 4, 3 * 5 * 4)
    # BatchNorm and the bound are part of it; sigmoid, maximum and cumsum are arithmetic on every element
    assert [kernel.kind for kernel in kernels[1:]] == ["other", "other", "other", "pool", "dense"]


@pytest.mark.slow
def test_an_arch_is_counted_without_weights() -> None:
    family = ResNet()
    student = new_student(family, ARCH, SPEC, 0)
    expected = analyse(student, Precision.FLOAT16)
    assert (
        analyse_arch(family, ARCH, SPEC, Precision.FLOAT16) == expected == analyse(folded(student), Precision.FLOAT16)
    )
    assert expected.parameters == sum(parameter.numel() for parameter in folded(student).module.parameters())


def test_the_student_is_left_as_it_was() -> None:
    student = small()
    student.module.train()
    analyse(student, Precision.INT8)
    assert student.module.training
    assert next(student.module.parameters()).device.type == "cpu"


class Shifted(nn.Module):
    """Subtracts a plain tensor, neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.conv, self.fc = (
            torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1),
            nn.Conv2d(3, 5, 3),
            nn.Linear(5, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x - self.mean).mean((2, 3)))


def test_plain_tensors_of_a_module_have_shapes_too() -> None:
    found = analyse(small().but(module=Shifted().eval()), Precision.FLOAT32)
    assert found.macs == 36 * 5 * 27 + 20


class Halving(nn.Module):
    """A convolution and a linear layer of as many channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, channels, 1), nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).mean((2, 3)))


class CutOutOfHalving:
    """A family whose `take` forgets a layer, so that what it leaves can't run."""

    name, inherits = "halving", True

    def space(self, spec: TaskSpec) -> Space:
        return Space(axes=(Axis(name="width", choices=(4, 8)),))

    def build(self, arch: Arch, spec: TaskSpec) -> nn.Module:
        return Halving(int(arch["width"]))

    def whole(self, spec: TaskSpec) -> Cuttable:
        def take(module: nn.Module, channels: dict[str, int]) -> None:
            module.first = nn.Conv2d(3, channels["first"], 1)

        return Cuttable(module=Halving(8), channels={"first": 8}, removable=(), take=take)  # type: ignore[arg-type]

    def cut(self, arch: Arch, spec: TaskSpec) -> CutArch:
        return CutArch(channels={"first": int(arch["width"])}, removed={})


def test_archs_are_traced_one_by_one_where_the_smaller_network_fails() -> None:
    spec = TaskSpec(name="images", input=InputSpec(shape=(3, 8, 8)), head=HeadSpec(classes=10), data="0" * 64)
    family = CutOutOfHalving()
    found = analyse_arch(family, Arch.of({"width": 4}), spec, Precision.FLOAT32)
    assert found.parameters == 4 * 3 + 4 + 4 * 10 + 10
    assert why_one_by_one(family, spec) == "first: can't run with 4 channels"
