"""The digits task."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd import plugins
from edgekd.tasks.digits import Digits
from edgekd.testing.contracts.task import TaskContract


class TestDigits(TaskContract):
    @pytest.fixture
    def make_task(self):
        return Digits


def test_is_found_by_name():
    assert plugins.load("edgekd.tasks", "digits") is Digits


def test_splits_are_the_same_on_every_machine():
    task = Digits()
    sizes = {name: len(task.split(name)) for name in ("train", "validation", "calibration", "test")}
    assert sizes == {"train": 1167, "validation": 270, "calibration": 128, "test": 360}
    assert task.spec.data == "f183d4f134159a98943d8ee30c0f34a1e5ed54300c3e301cc0c7ea17f453f1ee"
    assert task.spec.input.raw_range == (0.0, 16.0)


def test_a_limit_leaves_the_other_splits_alone():
    limited = Digits(train_limit=100)
    assert str(limited.sizes) == "100 train · 270 validation · 360 test · 100 calibration (of train)"
    for name in ("validation", "test"):
        assert np.array_equal(limited.split(name).inputs, Digits().split(name).inputs)
