"""Layer matching of a feature loss: pairs of student and teacher points, by a rule or by name.

Stages are paired from the end: last with last, then towards the input, as many as both have. Transformers have blocks
instead of stages: each block of the network with fewer is paired with the last block of an equal share of the other's
(Jiao et al. 2020, "TinyBERT", arXiv 1909.10351, section 4.1).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from edgekd.distill.losses._protocol import FeatureLoss, Site
from edgekd.errors import EdgeKDError, UnknownName
from edgekd.students.points import PENULTIMATE, Layout, Point

__all__ = ["Networks", "match_layers", "teacher_points"]

Pairs = tuple[tuple[Point, Point], ...]


@dataclass(frozen=True)
class Networks:
    """A student and its teacher, with the facts that feature losses need."""

    student: Layout
    teacher: Layout
    teacher_network: nn.Module
    samples: int  # to train on
    classes: int

    @property
    def classifier(self) -> tuple[Tensor, Tensor] | None:
        """Weight and bias of the teacher's last linear layer, zeros if it has no bias; None without such a layer."""
        head = dict(self.teacher_network.named_modules()).get(self.teacher.classifier or "-")
        if not isinstance(head, nn.Linear):
            return None
        bias = head.weight.new_zeros(head.out_features) if head.bias is None else head.bias
        return head.weight.detach(), bias.detach()


def match_layers(name: str, loss: FeatureLoss, networks: Networks) -> Site | str:
    """Return the site of a loss, or why there is none, as a sentence."""
    try:
        pairs = _pairs(loss, networks)
    except EdgeKDError as error:
        return f"{name}: {error}"
    if not pairs:
        return f"{name}: `points: {loss.points}` matches no points, {_lacking(networks)}"
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
    """Pair last with last, as many pairs as the smaller number, evenly spread over the larger."""
    count = min(len(student), len(teacher))

    def spread(blocks: tuple[Point, ...]) -> list[Point]:
        return [blocks[place * len(blocks) // count - 1] for place in range(1, count + 1)]

    return tuple(zip(spread(student), spread(teacher), strict=True))


def teacher_points(loss: FeatureLoss, teacher: Layout) -> tuple[Point, ...]:
    """Return all points of a teacher that a loss may need, for any student. Raises UnknownName."""
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
    """Return whether the point is a sequence of tokens or a signal: (C, T, 1)."""
    return len(point.shape) == 3 and point.shape[2] == 1 and point.shape[1] > 1
