"""Supernets of networks in stages: the contract, for images averaged down, blocks of two kinds and empty stages too."""

from __future__ import annotations

import pytest

from edgekd.errors import ConfigurationError
from edgekd.students.mobilenet import MobileNet
from edgekd.students.resnet import ResNet
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.testing.contracts.supernet import SupernetContract

SPEC = TaskSpec(name="odd", input=InputSpec(shape=(3, 30, 18)), head=HeadSpec(classes=7), data="0" * 64)


@pytest.mark.slow
class TestResNet(SupernetContract):
    @pytest.fixture
    def make_family(self):
        return lambda: ResNet.model_validate({"space": {"width": [8, 24], "depth": [1, 3]}})


class TestTwoStagesOfTheirOwn(SupernetContract):
    @pytest.fixture
    def make_family(self):
        space = {"widths": [[4, 12, 4], [6, 20, 7]], "depths": [[2, 3], [1, 1]], "stem_stride": [2]}
        return lambda: ResNet.model_validate({"stages": 2, "space": space})


class TestSmallerImages(SupernetContract):
    @pytest.fixture
    def make_family(self):
        space = {"width": [8, 16], "depth": [1, 2], "resolution": [15]}
        return lambda: ResNet.model_validate({"stages": 2, "space": space})

    @pytest.fixture
    def spec(self):
        return SPEC


@pytest.mark.slow
class TestTwoKindsOfBlocksAndAnEmptyStage(SupernetContract):
    @pytest.fixture
    def make_family(self):
        space = {"widths": [[8, 24], [4, 12, 4]], "depths": [[1, 2], [0, 2]], "block": ["basic", "separable"]}
        return lambda: ResNet.model_validate({"stages": 2, "space": space})


@pytest.mark.slow
class TestMobileNet(SupernetContract):
    @pytest.fixture
    def make_family(self):
        space = {"width": [4, 12, 4], "depths": [[1, 2], [1, 1]], "expansions": [[1, 3, 2], [2, 3]]}
        return lambda: MobileNet.model_validate({"stages": 2, "space": space})


@pytest.mark.slow
class TestMobileNetWithAnEmptyStage(SupernetContract):
    @pytest.fixture
    def make_family(self):
        space = {"widths": [[8, 16], [4, 12, 4]], "depths": [[1, 1], [0, 2]], "expansion": [1, 4, 3]}
        return lambda: MobileNet.model_validate({"stages": 2, "space": space})


@pytest.mark.parametrize("axis", [{"resolution": [15, 30]}, {"stem_stride": [1, 2]}])
def test_what_shares_no_work_is_refused(axis):
    family = ResNet.model_validate({"stages": 2, "space": axis})
    with pytest.raises(ConfigurationError, match=f"{next(iter(axis))} can't vary in a supernet"):
        family.supernet(SPEC)
    with pytest.raises(ConfigurationError):
        family.block_costs(SPEC)
