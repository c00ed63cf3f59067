"""A teacher asked for its logits and for what is seen at some points of its network, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from edgekd.errors import ConfigurationError
from edgekd.students.points import LOGITS, Layout, Point, layout_of, tapped
from edgekd.teachers._protocol import OpenTeacher, Teacher

__all__ = ["Seen", "observing", "teacher_layout"]

Seen = Callable[[Tensor], tuple[Tensor, Mapping[str, Tensor]]]
"""A raw-unit float32 batch (N, C, H, W) to logits (N, classes) and activations by point, without gradient."""


def teacher_layout(teacher: Teacher, shape: Sequence[int]) -> Layout | None:
    """The points of a teacher for raw inputs of a shape (C, H, W); None where its network can't be looked into."""
    if not isinstance(teacher, OpenTeacher):
        return None
    return layout_of(teacher.network(), tuple(teacher.prepared(torch.zeros((1, *shape))).shape[1:]))


@contextmanager
def observing(teacher: Teacher, shape: Sequence[int], points: Sequence[Point]) -> Iterator[Seen]:
    """A function that asks the teacher. Raises ConfigurationError where it has no such points."""
    if not points:
        yield lambda batch: (teacher.logits(batch), {})
        return
    layout = teacher_layout(teacher, shape)
    if layout is None or not isinstance(teacher, OpenTeacher):
        raise ConfigurationError.one(
            f"teacher `{teacher.name}` gives logits alone: its network can't be looked into",
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
