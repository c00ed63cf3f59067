"""Fitting a teacher to a task."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from edgekd.errors import ConfigurationError
from edgekd.tasks.digits import Digits
from edgekd.teachers.binding import bind, rated
from edgekd.teachers.torch import TorchTeacher


@dataclass
class Fixed:
    """A teacher that needs no binding."""

    value: float = 0.0
    classes: int = 4
    name: str = "fixed"

    def digest(self) -> str:
        return "0" * 64

    def logits(self, batch: Tensor) -> Tensor:
        return torch.full((len(batch), self.classes), self.value)


def test_a_teacher_without_bound_is_taken_as_it_is(spec):
    teacher = Fixed()
    assert bind(teacher, spec) is teacher


def test_other_classes_are_refused(spec):
    with pytest.raises(ConfigurationError, match="has 7 classes, and task `small` has 4"):
        bind(Fixed(classes=7), spec)


def test_nan_is_refused(spec):
    with pytest.raises(ConfigurationError, match="NaN"):
        bind(Fixed(float("nan")), spec)


def test_other_channels_are_refused(teacher_folder, options, spec):
    teacher = TorchTeacher.model_validate(options, context={"folder": teacher_folder})
    grey = spec.but(input=spec.input.but(shape=(1, 8, 8)))
    with pytest.raises(ConfigurationError, match=r"\(1, 8, 8\)"):
        bind(teacher, grey)


class Softmaxed(Fixed):
    def logits(self, batch: Tensor) -> Tensor:
        return torch.softmax(torch.randn(len(batch), self.classes), 1)


def test_probabilities_are_refused(spec):
    with pytest.raises(ConfigurationError, match="outputs probabilities"):
        bind(Softmaxed(), spec)


class Asserting(Fixed):
    def logits(self, batch: Tensor) -> Tensor:
        assert batch.shape[-1] == 224, "Wrong image size"
        return super().logits(batch)


def test_a_model_that_asserts_its_size_is_no_bug_of_ours(spec):
    with pytest.raises(ConfigurationError, match="Wrong image size"):
        bind(Asserting(), spec)


def test_a_teacher_is_scored_on_some_validation_samples():
    task = Digits()
    split = task.split("validation")

    class Knowing(Fixed):
        def logits(self, batch: Tensor) -> Tensor:
            places = [int((split.inputs == one).all((1, 2, 3)).argmax()) for one in batch.numpy()]
            return torch.nn.functional.one_hot(torch.from_numpy(split.labels[places]), 10).float() * 5

    assert rated(Knowing(classes=10), task).value == 1.0
    assert rated(Fixed(classes=10), task).value < 0.2
