"""Fitting a teacher to a task: its normalisation, and one trial answer before anything is trained."""

from __future__ import annotations

import torch

from edgekd.errors import ConfigurationError
from edgekd.tasks._protocol import TaskSpec
from edgekd.teachers._protocol import Bindable, Teacher

__all__ = ["bind"]


def bind(teacher: Teacher, spec: TaskSpec) -> Teacher:
    """The teacher for this task. Raises ConfigurationError where it can't see its images or knows other classes."""
    bound = teacher.bound(spec) if isinstance(teacher, Bindable) else teacher
    low, high = spec.input.raw_range
    # two different pictures, so that a teacher which mixes up batch and class axes is found out
    probe = torch.linspace(low, high, 2).reshape(2, 1, 1, 1).expand(2, *spec.input.shape).contiguous()
    try:
        answers = bound.logits(probe)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise ConfigurationError.one(
            f"teacher `{bound.name}` can't take this task's images {spec.input.shape}: {str(error).splitlines()[0]}",
            "give a teacher for this input, or its `resize`",
        ) from error
    if tuple(answers.shape) != (2, spec.head.classes):
        raise ConfigurationError.one(
            f"teacher `{bound.name}` tells {answers.shape[-1]} classes apart, "
            f"and task `{spec.name}` has {spec.head.classes}",
            "give a teacher trained on the same classes, in the same order",
        )
    if not torch.isfinite(answers).all():
        raise ConfigurationError.one(
            f"teacher `{bound.name}` answers NaN or infinity", "check its weights, and mean and std in raw units"
        )
    return bound
