"""Heads on one trunk: every family that builds them, and what each head is called."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from edgekd.distill.predict import predict
from edgekd.errors import ConfigurationError
from edgekd.students._protocol import Family
from edgekd.students.heads.deployed import deployed
from edgekd.students.resnet import ResNet
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.tasks.rows import outputs_of
from edgekd.testing.contracts.family import FamilyContract
from edgekd.testing.fakes.spots import LABELS, NUMBERS

HEADS = (
    HeadSpec(name="scene", classes=3),
    HeadSpec(name="things", kind="detection", classes=2, objects=5),
    HeadSpec(name="mask", kind="segmentation", classes=4),
)


def spec(*heads: HeadSpec, side: int = 32) -> TaskSpec:
    return TaskSpec(name="t", input=InputSpec(shape=(3, side, side)), head=heads[0], more=heads[1:], data="0" * 64)


class TestManyHeaded(FamilyContract):
    @pytest.fixture
    def make_family(self) -> Callable[[], Family]:
        return lambda: ResNet.model_validate({"space": {"width": [8, 24], "depth": [1, 2], "stem_stride": [1, 2]}})

    @pytest.fixture(
        params=[HEADS, HEADS[:2], HEADS[1:2], HEADS[2:], (*HEADS, LABELS, NUMBERS), (LABELS,), (NUMBERS,)],
        ids=["all", "two", "detection", "segmentation", "five", "labels", "numbers"],
    )
    def spec(self, request: pytest.FixtureRequest) -> TaskSpec:
        return spec(*request.param)


def test_outputs_are_as_the_task_lays_them_out() -> None:
    task = spec(*HEADS)
    family = ResNet.model_validate({"space": {"width": [8, 8], "depth": [1, 1]}})
    module = family.build(family.space(task).at(0), task)
    with torch.no_grad():
        found = deployed(module, task)(torch.randn(2, 3, 32, 32))
    assert [tuple(output.shape[1:]) for output in found] == [output.shape for output in outputs_of(task)]
    assert [str(output.dtype).removeprefix("torch.") for output in found] == [o.dtype for o in outputs_of(task)]


def test_a_map_with_fewer_cells_than_objects_keeps_the_outputs_shapes() -> None:
    task = spec(HEADS[1].but(objects=100))  # 8 x 8 cells
    family = ResNet.model_validate({"space": {"width": [8, 8], "depth": [1, 1]}})
    answers = predict(family.build(family.space(task).at(0), task), np.zeros((2, 3, 32, 32), np.uint8), task)
    assert answers["things.boxes"].shape == (2, 100, 4)
    assert not answers["things.scores"][:, 64:].any()


def test_a_plain_task_is_deployed_as_it_is() -> None:
    module = torch.nn.Linear(1, 1)
    assert deployed(module, spec(HEADS[0])) is module


def test_sides_that_stages_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="30 x 30"):
        ResNet().space(spec(*HEADS, side=30))
    assert ResNet().space(spec(HEADS[0], side=30)).size
