"""Logits and features of a teacher at points of its network, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from edgekd.errors import ConfigurationError
from edgekd.students.points import LOGITS, Layout, Point, layout_of, tapped
from edgekd.tasks._protocol import InputSpec
from edgekd.teachers._protocol import OpenTeacher, Teacher

__all__ = ["Seen", "observing", "prepared_input", "samples_at_once", "teacher_layout"]

_MOST_AT_ONCE = 256

Seen = Callable[[Tensor], tuple[Tensor, Mapping[str, Tensor]]]
"""Maps a raw-unit float32 batch (N, C, H, W) to logits (N, classes) and features by point, without gradient."""


def teacher_layout(teacher: Teacher, given: InputSpec) -> Layout | None:
    """Return the points of a teacher for a task's input; None if its network is not accessible."""
    if not isinstance(teacher, OpenTeacher):
        return None
    return layout_of(teacher.network(), prepared_input(teacher, given))


def prepared_input(teacher: OpenTeacher, given: InputSpec) -> InputSpec:
    """Return the input of the teacher's network for a task's input: images may be resized."""
    blank = teacher.prepared(torch.from_numpy(given.example()))
    return given.but(shape=tuple(blank.shape[1:]))


def samples_at_once(teacher: Teacher, given: InputSpec) -> int:
    """Return the number of samples of one call: as a network runs best, and 256 for those that run in their own way."""
    return prepared_input(teacher, given).at_once() if isinstance(teacher, OpenTeacher) else _MOST_AT_ONCE


@contextmanager
def observing(teacher: Teacher, given: InputSpec, points: Sequence[Point]) -> Iterator[Seen]:
    """Yield a function that runs the teacher. Raises ConfigurationError if it has no such points."""
    if not points:
        yield lambda batch: (teacher.logits(batch), {})
        return
    layout = teacher_layout(teacher, given)
    if layout is None or not isinstance(teacher, OpenTeacher):
        raise ConfigurationError.one(
            f"teacher `{teacher.name}` provides only logits: its network is not accessible",
            "use losses on logits, or a teacher of kind torch",
        )
    network = teacher.network()
    with tapped(network, layout, [point.name for point in points]) as seen:

        def ask(batch: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
            with torch.inference_mode():
                logits = teacher.rows(network(teacher.prepared(batch)))
            found = {**seen, LOGITS: logits}
            # a tensor of inference mode can't take part in a loss
            return logits.clone(), {point.name: found[point.name].clone() for point in points}

        yield ask
