"""Fitting a teacher to a task: its normalisation, and one trial answer before anything is trained."""

from __future__ import annotations

import numpy as np
import torch

from edgekd.errors import ConfigurationError
from edgekd.tasks._protocol import Score, Task, TaskSpec
from edgekd.teachers._protocol import Bindable, Teacher

__all__ = ["bind", "rated"]

_RATED, _AT_ONCE = 512, 64


def bind(teacher: Teacher, spec: TaskSpec) -> Teacher:
    """The teacher for this task. Raises ConfigurationError where it can't see its images or knows other classes."""
    bound = teacher.bound(spec) if isinstance(teacher, Bindable) else teacher
    low, high = spec.input.raw_range
    # two different pictures, so that a teacher which mixes up batch and class axes is found out
    probe = torch.linspace(low, high, 2).reshape(2, 1, 1, 1).expand(2, *spec.input.shape).contiguous()
    try:
        answers = bound.logits(probe)
    except (RuntimeError, ValueError, LookupError, TypeError, AssertionError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigurationError.one(
            f"teacher `{bound.name}` can't take this task's images {spec.input.shape}: {reason}",
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
    if spec.head.classes > 1 and bool((answers >= 0).all()) and bool(((answers.sum(1) - 1).abs() < 1e-3).all()):
        raise ConfigurationError.one(
            f"teacher `{bound.name}` answers probabilities, and a softmax of a softmax tells little",
            "take the softmax off its end; for a file, write `answers: probabilities`",
        )
    return bound


def rated(teacher: Teacher, task: Task) -> Score:
    """How often a bound teacher is right, on some validation samples."""
    split = task.split("validation")
    order = np.random.default_rng(0).permutation(len(split))[:_RATED]
    chosen, answers = np.sort(order), []
    for start in range(0, len(chosen), _AT_ONCE):
        batch = torch.from_numpy(split.inputs[chosen[start : start + _AT_ONCE]]).float()
        answers.append(teacher.logits(batch).numpy())
    return task.score(np.concatenate(answers), split.labels[chosen])
