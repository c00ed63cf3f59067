"""Validation of a multi-head training: reports unsupported combinations before it begins."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING

import torch

from edgekd.distill.heads._protocol import LABELS, BalanceName
from edgekd.distill.heads.batches import follows
from edgekd.distill.losses._protocol import Loss, OfLabels, OfNumbers
from edgekd.distill.losses.combined import Combined
from edgekd.errors import Problem
from edgekd.students._protocol import Student
from edgekd.students.heads.many import SharesTrunk, raw_names
from edgekd.tasks._protocol import HeadKind, HeadSpec, TaskSpec
from edgekd.teachers.packing import Packing

if TYPE_CHECKING:
    from edgekd.teachers._protocol import View

__all__ = ["head_problems"]

_UNSHIFTED: Mapping[HeadKind, str] = {
    "detection": "a logit of 0 is a probability of one half, and a shift would change it",
    "multilabel": "a logit of 0 is a probability of one half, and a shift would change it",
    "regression": "they already are, each over all samples",
}


def head_problems(
    student: Student,
    spec: TaskSpec,
    teacher_packing: Packing,
    balance: BalanceName,
    smoothing: float,
    view: View | None,
    loss: Combined,
) -> list[Problem]:
    """Return every reason why these heads can't be trained so.

    ``teacher_packing``: the teacher's packing; empty without a teacher.
    """
    problems = _without_form(spec, {part.name for part in teacher_packing}, loss)
    if spec.plain:
        if balance != "none":
            problems.append(Problem(f"distill: balance: {balance} is for several heads", "leave balance out"))
        return problems
    if balance == "gradnorm" and not isinstance(student.module, SharesTrunk):
        message = f"distill: balance: gradnorm needs the weights shared by all heads, unknown for {student.family}"
        problems.append(Problem(message, "use balance: uncertainty"))
    if smoothing:
        message = "distill: labels are smoothed for a task of one classification head alone"
        problems.append(Problem(message, "leave label_smoothing out"))
    dense = any(head.kind in ("detection", "segmentation") for head in spec.heads)
    if dense and not follows(view):
        message = f"distill: boxes and masks of task `{spec.name}` can't be moved along with these augmentations"
        problems.append(Problem(message, "use crop, flip, colour, erase and noise alone"))
    return problems + _of_other_strides(student, spec, {part.name: part.shape for part in teacher_packing})


def _without_form(spec: TaskSpec, teacher_names: Set[str], loss: Combined) -> list[Problem]:
    """Return the distillation losses that have no form for a head's kind of output."""
    heads = [head for head in spec.heads if not teacher_names or raw_names(head)[0] in teacher_names]
    found = []
    for name, part in loss.parts:
        if name == LABELS or not isinstance(part, Loss) or not (part.weight or "weight" in part.schedule):
            continue
        for head in heads:
            why, remedy = _why_not(name, part, head)
            if why:
                found.append(Problem(f"distill: {name}: {why}", remedy))
    return found


def _why_not(name: str, loss: Loss, head: HeadSpec) -> tuple[str, str]:
    """Return problem and remedy; both empty if the loss supports the head."""
    where = f"for the {head.kind} head `{head.name}`"
    plain = f"leave standardize out of {name}"
    if head.kind in _UNSHIFTED:
        formed = isinstance(loss, OfNumbers) if head.kind == "regression" else isinstance(loss, OfLabels)
        if not formed:
            return f"it has no form {where}: {loss.formless}", "use kd or dist, which have a form for it"
        if loss.standardize:
            return f"logits can't be standardized {where}: {_UNSHIFTED[head.kind]}", plain
    elif loss.standardize and head.classes == 2:
        return f"logits can't be standardized {where}: of two classes only the order would be left", plain
    elif loss.every_pair and head.kind == "segmentation":
        return f"it compares all pairs of outputs, and {where} every cell is an output", "use kd, dkd or dist"
    return "", ""


def _of_other_strides(student: Student, spec: TaskSpec, teacher_shapes: Mapping[str, tuple[int, ...]]) -> list[Problem]:
    """Return the detection heads whose heat map has another size than the teacher's; it can't be resampled."""
    names = [raw_names(head)[0] for head in spec.heads if head.kind == "detection"]
    if student.task.heads != spec.heads or not any(name in teacher_shapes for name in names):
        return []
    with torch.no_grad():
        own = copy.deepcopy(student.module).eval()(torch.from_numpy(spec.input.example()))
    return [
        Problem(
            f"distill: the student's map for `{name.partition('.')[0]}` has {_size(own[name].shape)} cells, "
            f"the teacher's {_size(teacher_shapes[name])}",
            "use a teacher of the student's stride, or leave this head's teacher out",
        )
        for name in names
        if name in teacher_shapes and own[name].shape[2:] != teacher_shapes[name][1:]
    ]


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape[-2:]))
