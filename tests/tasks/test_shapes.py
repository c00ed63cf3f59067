"""The generated shapes: as every task, and what their labels say of the pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pydantic import ValidationError

from edgekd.tasks._protocol import Task
from edgekd.tasks.rows import has_label
from edgekd.tasks.shapes import KINDS, Shapes, draw
from edgekd.testing.contracts.task import TaskContract


class TestShapes(TaskContract):
    @pytest.fixture
    def make_task(self) -> Callable[[], Task]:
        return lambda: Shapes(train=60, test=20, validation=20, calibration=10, side=32)


class TestOneHead(TaskContract):
    @pytest.fixture(params=["scene", "things", "mask"])
    def make_task(self, request: pytest.FixtureRequest) -> Callable[[], Task]:
        return lambda: Shapes(train=60, test=20, validation=20, calibration=10, side=32, heads=(request.param,))


def test_boxes_bound_the_mask_and_the_scene_is_its_largest_part() -> None:
    images, fields = draw(40, 64, (3,))
    assert images.shape == (40, 3, 64, 64)
    for mask, things, scene in zip(fields["mask"], fields["things"], fields["scene"], strict=True):
        there = things[things[:, 4] >= 0]
        assert 1 <= len(there) <= 4
        for x1, y1, x2, y2, kind, _ in there.astype(int):
            assert (mask[y1:y2, x1:x2] == kind + 1).any()
        covered = np.zeros_like(mask, bool)
        for x1, y1, x2, y2, *_ in there.astype(int):
            covered[y1:y2, x1:x2] = True
        assert not (mask[~covered] > 0).any()
        areas = np.bincount(mask.ravel(), minlength=1 + len(KINDS))[1:]
        assert areas[scene] == areas.max()


def test_labels_can_be_taken_away() -> None:
    task = Shapes(train=200, test=10, validation=10, calibration=10, side=32, labelled=0.5)
    train, validation = task.split("train").labels, task.split("validation").labels
    for head in task.spec.heads:
        assert 0.3 < has_label(head, train[head.name]).mean() < 0.7
        assert has_label(head, validation[head.name]).all()


def test_a_scene_alone_needs_its_labels() -> None:
    with pytest.raises(ValidationError, match="needs its label"):
        Shapes(heads=("scene",), labelled=0.5)
