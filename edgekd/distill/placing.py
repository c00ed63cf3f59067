"""Where a feature loss looks: the points of student and teacher that it compares, found by a rule or by name.

Stages are paired from the end: the last of the student with the last of the teacher, and so on towards the image, as
many as both have. Two transformers have no stages but blocks: each of the one with fewer is paired with the last of its
share of the other's, evenly (Jiao et al. 2020, "TinyBERT", arXiv 1909.10351, section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edgekd.distill.losses._protocol import FeatureLoss, Site
from edgekd.errors import EdgeKDError, UnknownName
from edgekd.students.points import PENULTIMATE, Layout, Point

__all__ = ["Networks", "placed", "teacher_points"]

Pairs = tuple[tuple[Point, Point], ...]


@dataclass(frozen=True)
class Networks:
    """A student and its teacher, as far as losses look into them."""

    student: Layout
    teacher: Layout
    teacher_network: nn.Module
    samples: int  # to train on
    classes: int

    @property
    def classifier(self) -> tuple[Tensor, Tensor] | None:
        """The teacher's last linear layer, its bias zero where it has none."""
        head = dict(self.teacher_network.named_modules()).get(self.teacher.classifier or "-")
        if not isinstance(head, nn.Linear):
            return None
        bias = head.weight.new_zeros(head.out_features) if head.bias is None else head.bias
        return head.weight.detach(), bias.detach()


def placed(name: str, loss: FeatureLoss, networks: Networks) -> Site | str:
    """The site of a loss, or why there is none, in a sentence."""
    try:
        pairs = _pairs(loss, networks)
    except EdgeKDError as error:
        return f"{name}: {error}"
    if not pairs:
        return f"{name}: `points: {loss.points}` finds nothing to compare, {_lacking(networks)}"
    for own, other in pairs:
        if len(own.shape) != len(other.shape) and not loss.mixes:
            return (
                f"{name}: a map can't be compared with a vector, and the student's `{own.name}` gives {_shape(own)}, "
                f"the teacher's `{other.name}` {_shape(other)}"
            )
        if {_is_row(own), _is_row(other)} == {True, False} and not loss.mixes:
            return (
                f"{name}: tokens in a row can't be compared with a map of a picture, and the student's `{own.name}` "
                f"gives {_shape(own)}, the teacher's `{other.name}` {_shape(other)}"
            )
    site = Site(
        pairs=tuple(sorted(pairs, key=lambda pair: -_pixels(pair[0]))),
        samples=networks.samples,
        classes=networks.classes,
        classifier=networks.classifier,
        student_classifier=networks.student.classifier,
        student_width=networks.student.points[PENULTIMATE].shape[0] if networks.student.classifier else 0,
    )
    problem = loss.problem(site)
    return f"{name}: {problem}" if problem else site


def _pairs(loss: FeatureLoss, networks: Networks) -> Pairs:
    student, teacher = networks.student, networks.teacher
    if isinstance(loss.points, tuple):
        return tuple((_at(student, own, "student"), _at(teacher, other, "teacher")) for own, other in loss.points)
    if loss.points == "each stage":
        if student.blocks and teacher.blocks:
            return _evenly(student.blocks, teacher.blocks)
        count = min(len(student.stages), len(teacher.stages))
        return tuple(zip(student.stages[-count:], teacher.stages[-count:], strict=True)) if count else ()
    if loss.points == "last stage":
        return tuple(zip(student.stages[-1:], teacher.stages[-1:], strict=False))
    own, other = student.points.get(loss.points), teacher.points.get(loss.points)
    return ((own, other),) if own is not None and other is not None else ()


def _evenly(student: tuple[Point, ...], teacher: tuple[Point, ...]) -> Pairs:
    """The last with the last, and as many pairs as the smaller number, evenly spread over the larger one."""
    count = min(len(student), len(teacher))

    def spread(blocks: tuple[Point, ...]) -> list[Point]:
        return [blocks[place * len(blocks) // count - 1] for place in range(1, count + 1)]

    return tuple(zip(spread(student), spread(teacher), strict=True))


def teacher_points(loss: FeatureLoss, teacher: Layout) -> tuple[Point, ...]:
    """All points of a teacher that a loss may ask for, whatever the student. Raises UnknownName."""
    if isinstance(loss.points, tuple):
        return tuple(_at(teacher, other, "teacher") for _, other in loss.points)
    if loss.points == "each stage":
        return tuple(dict.fromkeys((*teacher.stages, *teacher.blocks)))
    if loss.points == "last stage":
        return teacher.stages[-1:]
    return (teacher.points[loss.points],) if loss.points in teacher.points else ()


def _at(layout: Layout, name: str, whose: str) -> Point:
    try:
        return layout.at(name)
    except UnknownName as error:
        raise UnknownName(f"point of the {whose}", error.found, error.known) from error


def _lacking(networks: Networks) -> str:
    whose = [
        f"the {name} has {len(layout.stages)} stages and {'a' if layout.classifier else 'no'} linear classifier"
        for name, layout in (("student", networks.student), ("teacher", networks.teacher))
    ]
    return " and ".join(whose)


def _shape(point: Point) -> str:
    return " x ".join(map(str, point.shape))


def _pixels(point: Point) -> int:
    return point.shape[1] * point.shape[2] if len(point.shape) == 3 else 0


def _is_row(point: Point) -> bool:
    """Whether it is tokens, or a signal, in a row: (C, T, 1)."""
    return len(point.shape) == 3 and point.shape[2] == 1 and point.shape[1] > 1
