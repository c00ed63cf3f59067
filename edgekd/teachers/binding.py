"""Binding of a teacher to a task: normalisation, and one trial batch before any training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from edgekd.errors import ConfigurationError, first_line
from edgekd.students.heads.deployed import Decoder
from edgekd.students.heads.many import raw_names
from edgekd.tasks._protocol import HeadSpec, InputSpec, Rows, Score, Task, TaskSpec
from edgekd.tasks.metrics.heads import score_heads
from edgekd.tasks.rows import has_label, output_rows
from edgekd.teachers._protocol import Bindable, Teacher
from edgekd.teachers.observed import samples_at_once
from edgekd.teachers.packing import Packing, packing_in, unpacked

__all__ = ["bind", "rated"]

_RATED, _MOST_AT_ONCE = 512, 64


def bind(teacher: Teacher, spec: TaskSpec) -> Teacher:
    """Return the teacher for this task. Raises ConfigurationError if it can't take its inputs or has other classes."""
    bound = teacher.bound(spec) if isinstance(teacher, Bindable) else teacher
    probe = _two_samples(spec.input)
    try:
        answers = bound.logits(probe)
    except (RuntimeError, ValueError, LookupError, TypeError, AssertionError, AttributeError) as error:
        reason = first_line(error)
        given = spec.input if spec.input.named else spec.input.shape
        raise ConfigurationError.one(
            f"teacher `{bound.name}` can't take this task's {spec.input.what} {given}: {reason}",
            "give a teacher of these inputs" if spec.input.named else "give a teacher for this input, or its `resize`",
        ) from error
    if not spec.plain:
        return _with_heads(bound, spec, answers)
    if tuple(answers.shape) != (2, spec.head.classes):
        raise ConfigurationError.one(
            f"teacher `{bound.name}` has {answers.shape[-1]} classes, and task `{spec.name}` has {spec.head.classes}",
            "give a teacher trained on the same classes, in the same order",
        )
    if not torch.isfinite(answers).all():
        raise ConfigurationError.one(
            f"teacher `{bound.name}` outputs NaN or infinity", "check its weights, and mean and std in raw units"
        )
    if spec.head.classes > 1 and bool((answers >= 0).all()) and bool(((answers.sum(1) - 1).abs() < 1e-3).all()):
        raise ConfigurationError.one(
            f"teacher `{bound.name}` outputs probabilities, and logits are expected",
            "remove the softmax at its end; for a file, write `answers: probabilities`",
        )
    return bound


def _two_samples(given: InputSpec) -> Tensor:
    """Return two different raw samples, which detect a teacher that confuses batch and class axes."""
    if given.named:
        return torch.from_numpy(given.random(0, 2))
    low, high = given.raw_range
    return torch.linspace(low, high, 2).reshape(2, *[1] * len(given.shape)).expand(2, *given.shape).contiguous()


def _with_heads(teacher: Teacher, spec: TaskSpec, answers: Tensor) -> Teacher:
    """Return a bound teacher of a multi-head task, after checking its outputs."""
    channels = {name: (head.classes, 4)[name.endswith(".box")] for head in spec.heads for name in raw_names(head)}
    packing = packing_in(teacher)
    if not packing:
        raise ConfigurationError.one(
            f"teacher `{teacher.name}` has one classification head, and task `{spec.name}` has others",
            "assign teachers to heads: teacher: {kind: heads, of: {...}}"
            if spec.more
            else f"give a teacher whose network has raw outputs for `{spec.head.name}`: kind torch or train",
        )
    wrong = [part.name for part in packing if channels.get(part.name) != part.shape[0]]
    if wrong:
        raise ConfigurationError.one(
            f"teacher `{teacher.name}` has other classes for {', '.join(wrong)} than task `{spec.name}`",
            "give a teacher trained on the same classes, in the same order",
        )
    if not torch.isfinite(answers).all():
        raise ConfigurationError.one(
            f"teacher `{teacher.name}` outputs NaN or infinity", "check its weights, and mean and std in raw units"
        )
    return teacher


def rated(teacher: Teacher, task: Task) -> Score | None:
    """Score a bound teacher on up to 512 validation samples, by the metrics of the heads that it teaches.

    None if it teaches no head for which a sample has a label.
    """
    packing, spec, split = packing_in(teacher), task.spec, task.split("validation")
    chosen = np.sort(np.random.default_rng(0).permutation(len(split))[:_RATED])
    labels = split.labels[chosen]
    heads = spec.heads if spec.plain else tuple(_heads_taught(spec.heads, packing, labels))
    if not heads:
        return None
    part, answers = spec.but(head=heads[0], more=heads[1:]), []
    at_once = min(_MOST_AT_ONCE, samples_at_once(teacher, spec.input))
    for start in range(0, len(chosen), at_once):
        batch = torch.from_numpy(split.inputs[chosen[start : start + at_once]]).float()
        rows = teacher.logits(batch)
        with torch.inference_mode():
            decoded = (rows,) if spec.plain else Decoder(part)(unpacked(rows, packing))
        answers.append(output_rows(part, [output.numpy() for output in decoded]))
    given = np.concatenate(answers)
    if heads == spec.heads:
        return task.score(given, labels)
    if not part.plain:
        return score_heads(heads, given, labels)
    labels = labels[heads[0].name]
    known = has_label(heads[0], labels)
    return score_heads(heads, given[known], labels[known])


def _heads_taught(heads: Sequence[HeadSpec], packing: Packing, labels: Rows) -> Iterator[HeadSpec]:
    names = {packed.name for packed in packing}
    for head in heads:
        if set(raw_names(head)) <= names and has_label(head, labels[head.name]).any():
            yield head
