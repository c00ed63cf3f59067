"""The family resnet: its space, its networks, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError

from edgekd.errors import ConfigurationError
from edgekd.ir.space import Arch
from edgekd.students._protocol import Family
from edgekd.students.resnet import ResNet
from edgekd.students.trunk import he_normal
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.testing.contracts.family import FamilyContract


class TestResNet(FamilyContract):
    @pytest.fixture
    def make_family(self) -> Callable[[], Family]:
        return lambda: ResNet.model_validate({"space": {"width": [8, 32], "depth": [1, 2]}})


def spec(*shape: int) -> TaskSpec:
    return TaskSpec(name="t", input=InputSpec(shape=shape), head=HeadSpec(classes=10), data="0" * 64)


def arch(depth: int, **more: int) -> Arch:
    return Arch.of({"width1": 16, "width2": 32, "width3": 64, **{f"depth{s}": depth for s in (1, 2, 3)}, **more})


@pytest.mark.parametrize(("depth", "parameters"), [(1, 77_706), (3, 271_690)])
def test_the_known_networks_are_points_of_the_space(depth: int, parameters: int) -> None:
    family = ResNet()
    assert arch(depth) in family.space(spec(3, 32, 32))
    module = family.build(arch(depth), spec(3, 32, 32))
    norms = sum(2 * part.num_features for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d))
    count = sum(parameter.numel() for parameter in module.parameters())
    assert count - norms // 2 == parameters  # a folded BatchNorm leaves one bias a channel


def test_fresh_weights_are_drawn_as_torch_draws_those_of_he() -> None:
    ours, torchs = (torch.nn.Conv2d(16, 32, 3) for _ in range(2))
    torch.manual_seed(5)
    he_normal(ours)
    torch.manual_seed(5)
    torch.nn.init.kaiming_normal_(torchs.weight, mode="fan_out", nonlinearity="relu")
    assert torch.equal(ours.weight, torchs.weight)


def test_options_decide_the_axes() -> None:
    family = ResNet.model_validate(
        {"space": {"width": [8, 24], "depth": [2, 6, 2], "stem_stride": [1, 2]}, "stages": 2}
    )
    axes = {axis.name: axis.choices for axis in family.space(spec(3, 32, 32)).axes}
    assert axes == {
        "depth1": (2, 4, 6),
        "depth2": (2, 4, 6),
        "stem_stride": (1, 2),
        "width1": (8, 16, 24),
        "width2": (8, 16, 24),
    }
    assert ResNet.model_validate(family.model_dump(mode="json")) == family


def test_a_space_can_be_written_stage_by_stage() -> None:
    family = ResNet.model_validate({"space": {"widths": [16, [24, 40], [32, 64, 32]], "depths": [1, [1, 2], 1]}})
    axes = {axis.name: axis.choices for axis in family.space(spec(3, 32, 32)).axes}
    assert axes == {
        "depth1": (1,),
        "depth2": (1, 2),
        "depth3": (1,),
        "width1": (16,),
        "width2": (24, 32, 40),
        "width3": (32, 64),
    }
    assert ResNet.model_validate({"space": {"width": 16, "depth": 2}}).space(spec(3, 32, 32)).size == 1
    alone = ResNet.model_validate({"space": {"widths": [16, 32, 64], "depths": [1, 1, 1]}})
    assert alone.space(spec(3, 32, 32)).size == 1
    assert alone.space(spec(3, 32, 32)).at(0) == arch(1)
    assert ResNet.model_validate(family.model_dump(mode="json")) == family


def test_a_space_stage_by_stage_has_an_entry_a_stage() -> None:
    with pytest.raises(ValidationError, match="widths has 2 entries, and there are 3 stages"):
        ResNet.model_validate({"space": {"widths": [16, 32]}})


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 33, 17)])
def test_networks_answer_for_any_image(shape: tuple[int, ...]) -> None:
    module = ResNet().build(arch(1), spec(*shape))
    assert module(torch.zeros(2, *shape)).shape == (2, 10)
    assert not module.training


def test_a_stem_stride_lowers_the_resolution() -> None:
    module = ResNet.model_validate({"space": {"stem_stride": [1, 2]}}).build(arch(1, stem_stride=2), spec(3, 32, 32))
    assert module.get_submodule("stem")(torch.zeros(1, 3, 32, 32)).shape[-1] == 16


def test_resolution_is_what_the_stem_sees() -> None:
    family = ResNet.model_validate({"space": {"resolution": [16, 8, 32]}})
    (axis,) = (axis for axis in family.space(spec(3, 32, 32)).axes if axis.name == "resolution")
    assert axis.choices == (8, 16, 32)
    images = torch.randn(2, 3, 32, 32)
    torch.manual_seed(0)
    small = family.build(arch(1, resolution=8), spec(3, 32, 32))
    torch.manual_seed(0)
    direct = ResNet().build(arch(1), spec(3, 8, 8))
    torch.testing.assert_close(small(images), direct(images.reshape(2, 3, 8, 4, 8, 4).mean((3, 5))))
    alone = ResNet.model_validate({"space": {"resolution": [16]}})
    assert "resolution" not in {axis.name for axis in alone.space(spec(3, 32, 32)).axes}
    assert alone.build(arch(1), spec(3, 32, 32)).get_submodule("shrink")(images).shape[-1] == 16


@pytest.mark.parametrize(
    ("shape", "resolution", "said"),
    [
        ((3, 32, 32), 24, "32 x 32 pixels can't be averaged down to a height of 24"),
        ((3, 32, 33), 16, "32 x 33 pixels can't be averaged"),
        ((3, 32, 32), 64, "to a height of 64"),
        ((3, 32, 32), 2, "at least 4 pixels, and these have 2"),
    ],
)
def test_a_resolution_that_does_not_fit_is_refused(shape: tuple[int, ...], resolution: int, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        ResNet.model_validate({"space": {"resolution": [resolution]}}).space(spec(*shape))


def test_images_too_small_for_the_stages_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least 4 pixels, and these have 3"):
        ResNet().space(spec(1, 3, 3))


@pytest.mark.parametrize(
    "space", [{"width": [64, 8]}, {"width": [8]}, {"width": [0, 8]}, {"widht": [8, 16]}, {"widths": [8, [64, 8], 8]}]
)
def test_a_wrong_space_is_refused(space: dict[str, list[int]]) -> None:
    with pytest.raises(ValidationError):
        ResNet.model_validate({"space": space})
