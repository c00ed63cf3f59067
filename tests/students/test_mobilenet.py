"""The family mobilenet: its space, its networks, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError

from edgekd.ir.space import Arch
from edgekd.students._protocol import Family
from edgekd.students.analysis import kernels_of_arch
from edgekd.students.mobilenet import MobileNet
from edgekd.students.points import layout_of
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.testing.contracts.family import FamilyContract

SPEC = TaskSpec(name="t", input=InputSpec(shape=(3, 32, 32)), head=HeadSpec(classes=10), data="0" * 64)
SMALL = {"space": {"width": [8, 16], "depth": [1, 2], "expansion": [1, 4, 3]}}


class TestMobileNet(FamilyContract):
    @pytest.fixture
    def make_family(self) -> Callable[[], Family]:
        return lambda: MobileNet.model_validate(SMALL)


class TestManyHeaded(FamilyContract):
    @pytest.fixture
    def make_family(self) -> Callable[[], Family]:
        return lambda: MobileNet.model_validate(SMALL)

    @pytest.fixture
    def spec(self) -> TaskSpec:
        heads = HeadSpec(name="scene", classes=3), HeadSpec(name="mask", kind="segmentation", classes=4)
        return TaskSpec(name="two", input=InputSpec(shape=(3, 32, 32)), head=heads[0], more=heads[1:], data="0" * 64)


def one(widths: list[int], depths: list[int], expansions: list[int]) -> tuple[MobileNet, Arch]:
    space = {"widths": widths, "depths": depths, "expansions": expansions}
    family = MobileNet.model_validate({"space": space, "stages": len(widths)})
    return family, family.space(SPEC).at(0)


def test_options_decide_the_axes() -> None:
    family = MobileNet.model_validate({"space": {"width": [8, 16], "depth": [2, 2], "expansion": 4}, "stages": 2})
    axes = {axis.name: axis.choices for axis in family.space(SPEC).axes}
    assert list(axes) == sorted(axes)
    assert axes == {
        "depth1": (2,),
        "depth2": (2,),
        "expansion1": (4,),
        "expansion2": (4,),
        "width1": (8, 16),
        "width2": (8, 16),
    }
    assert MobileNet.model_validate(family.model_dump(mode="json")) == family
    assert {axis.choices for axis in MobileNet().space(SPEC).axes if axis.name.startswith("expansion")} == {(3, 6)}


def test_a_block_is_wide_inside_and_narrow_between() -> None:
    family, arch = one([8, 16], [2, 1], [6, 4])
    kernels = kernels_of_arch(family, arch, SPEC)
    assert [(k.kind, k.inputs, k.outputs, k.height, k.taps, k.stride) for k in kernels] == [
        ("conv", 3, 8, 32, 9, 1),
        ("conv", 8, 48, 32, 1, 1),
        ("depthwise", 48, 48, 32, 9, 1),
        ("conv", 48, 8, 32, 1, 1),
        ("add", 8, 8, 32, 1, 1),
        ("conv", 8, 48, 32, 1, 1),
        ("depthwise", 48, 48, 32, 9, 1),
        ("conv", 48, 8, 32, 1, 1),
        ("add", 8, 8, 32, 1, 1),
        ("conv", 8, 32, 32, 1, 1),  # the stage it leads to says how wide
        ("depthwise", 32, 32, 16, 9, 2),
        ("conv", 32, 16, 16, 1, 1),
        ("conv", 16, 64, 16, 1, 1),
        ("pool", 64, 64, 1, 1, 1),
        ("dense", 64, 10, 1, 1, 1),
    ]


def test_without_expansion_a_block_has_two_convolutions() -> None:
    family, arch = one([8], [1], [1])
    assert [kernel.kind for kernel in kernels_of_arch(family, arch, SPEC)].count("conv") == 3  # stem, block, last


@pytest.mark.parametrize(
    ("path", "reached"), [("stem.conv", 32 * 9), ("blocks.0.conv1", 9), ("blocks.0.conv2", 32), ("last.conv", 128)]
)
def test_fresh_weights_are_by_what_each_input_reaches(path: str, reached: int) -> None:
    family, arch = one([32], [1], [6])
    torch.manual_seed(0)
    weight = family.build(arch, SPEC).get_parameter(f"{path}.weight")
    assert float(weight.detach().std()) == pytest.approx((2 / reached) ** 0.5, rel=0.06)


def test_stages_end_behind_an_activation() -> None:
    family, arch = one([8, 16], [1, 1], [4, 4])
    assert [(point.name, point.shape) for point in layout_of(family.build(arch, SPEC), SPEC.input).stages] == [
        ("blocks.1.widen", (32, 32, 32)),
        ("last", (64, 16, 16)),
    ]


def test_it_grows_and_answers_as_before() -> None:
    family = MobileNet.model_validate({"space": {"width": [8, 8], "depth": [1, 3], "expansion": 2}})
    deep = family.space(SPEC).at(family.space(SPEC).size - 1)
    first, second = family.growth_schedule(deep)
    torch.manual_seed(0)
    small, large = family.build(first, SPEC), family.build(second, SPEC)
    grown = family.transfer_weights(small, first, large, second)
    images = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(grown(images), small(images))


def test_what_a_trunk_shares_is_its_last_convolution() -> None:
    heads = HeadSpec(name="scene", classes=3), HeadSpec(name="thing", classes=4)
    spec = TaskSpec(name="two", input=InputSpec(shape=(3, 32, 32)), head=heads[0], more=heads[1:], data="0" * 64)
    family, arch = one([8, 16], [1, 1], [2, 2])
    (weights,) = family.build(arch, spec).shared_weights()
    assert weights.shape == (16, 16, 1, 1)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"expansions": [2, 2]}, "expansions has 2 entries, and there are 3 stages"),
        ({"expansion": [6, 3]}, "starts above its end"),
        ({"expansion": [1, 1000]}, "1000 times as wide: 64 are the most"),
        ({"width": [8, 1000000000]}, "1000000000 channels: 8192 are the most"),
        ({"depths": [[1, 1], [1, 100000000]]}, "100000000 blocks a stage: 256 are the most"),
        ({"expansion": 0}, "greater than 0"),
        ({"expanse": [3, 6]}, "Extra inputs"),
    ],
)
def test_a_wrong_space_is_refused(space: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        MobileNet.model_validate({"space": space})
