"""Fitting a teacher to a task."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from edgekd.errors import ConfigurationError
from edgekd.teachers.binding import bind
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
    with pytest.raises(ConfigurationError, match="tells 7 classes apart, and task `small` has 4"):
        bind(Fixed(classes=7), spec)


def test_nan_is_refused(spec):
    with pytest.raises(ConfigurationError, match="NaN"):
        bind(Fixed(float("nan")), spec)


def test_other_channels_are_refused(teacher_folder, options, spec):
    teacher = TorchTeacher.model_validate(options, context={"folder": teacher_folder})
    grey = spec.but(input=spec.input.but(shape=(1, 8, 8)))
    with pytest.raises(ConfigurationError, match=r"\(1, 8, 8\)"):
        bind(teacher, grey)
