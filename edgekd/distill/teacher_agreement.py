"""Agreement of a student with its teacher, overall and for each class, and the calibration error of both (Guo et al.

2017, "On calibration of modern neural networks", ICML: 15 bins of equal width).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from edgekd.distill.heads.objective import TRAININGS
from edgekd.distill.heads.targets import targets_of
from edgekd.distill.inputs import Normalisation
from edgekd.store.explanation import ClassFollowed, Following
from edgekd.tasks.mapped import release
from edgekd.teachers.observed import samples_at_once
from edgekd.teachers.packing import packing_in, unpacked

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekd.distill.heads._protocol import HeadLogits
    from edgekd.tasks._protocol import HeadSpec, Split, TaskSpec
    from edgekd.teachers._protocol import Teacher

__all__ = ["agreement_of", "agreement_of_heads", "calibration_error", "in_batches"]

_BINS = 15


def agreement_of(
    student: NDArray[np.floating],
    teacher: NDArray[np.floating],
    labels: NDArray[np.int64],
    names: Sequence[str] = (),
    of: Literal["samples", "cells"] = "samples",
) -> Following:
    """Compute agreement from logits of both (N, classes) and labels (N,), N >= 1.

    Without ``names``, classes are numbered.
    """
    own, other = student.argmax(1), teacher.argmax(1)
    agree = own == other
    classes = []
    for number in range(student.shape[1]):
        here = labels == number
        if not here.any():
            continue
        classes.append(
            ClassFollowed(
                label=names[number] if number < len(names) else str(number),
                samples=int(here.sum()),
                student=float((own[here] == number).mean()),
                teacher=float((other[here] == number).mean()),
                agreement=float(agree[here].mean()),
            )
        )
    return Following(
        samples=len(labels),
        student=float((own == labels).mean()),
        teacher=float((other == labels).mean()),
        agreement=float(agree.mean()),
        student_error=calibration_error(student, labels),
        teacher_error=calibration_error(teacher, labels),
        classes=tuple(classes),
        of=of,
    )


def agreement_of_heads(module: nn.Module, teacher: Teacher, split: Split, spec: TaskSpec) -> dict[str, Following]:
    """Compute agreement for each classification and segmentation head that the teacher has too.

    Only labelled samples or cells count. The module is left in eval mode.
    """
    normalise, labels = Normalisation(spec.input), targets_of(spec, split.labels)
    found: dict[str, list[HeadLogits]] = {}
    module.eval()
    at = 0
    for batch in in_batches(split, samples_at_once(teacher, spec.input)):
        rows = teacher.logits(batch)  # before packing_in: some teachers have a packing only after their first batch
        teacher_outputs = unpacked(rows, packing_in(teacher))
        with torch.no_grad():
            own = module(normalise(batch))
        for head in spec.heads:
            if head.kind not in ("classification", "segmentation") or head.name not in teacher_outputs:
                continue
            true = labels[head.name][at : at + len(batch)]
            compared = TRAININGS[head.kind].comparison(head, [own[head.name]], [teacher_outputs[head.name]], true)
            if compared is not None:
                found.setdefault(head.name, []).append(compared)
        at += len(batch)
    heads = {head.name: head for head in spec.heads}
    return {
        name: agreement
        for name, parts in found.items()
        if (agreement := _agreement_of_head(heads[name], parts)) is not None
    }


def _agreement_of_head(head: HeadSpec, parts: Sequence[HeadLogits]) -> Following | None:
    """Return the agreement of one head; None if no sample is labelled."""
    known = torch.cat([part.known for part in parts if part.known is not None])
    if not bool(known.any()):
        return None
    student, teacher, labels = (
        torch.cat([getattr(part, name) for part in parts])[known].numpy() for name in ("student", "teacher", "labels")
    )
    return agreement_of(student, teacher, labels, head.labels, "cells" if head.kind == "segmentation" else "samples")


def in_batches(split: Split, most: int) -> Iterator[Tensor]:
    """Yield the split's samples in order, raw float32 (N, ...), N <= ``most``."""
    for start in range(0, len(split), most):
        yield torch.from_numpy(np.array(split.inputs[start : start + most])).float()
        release()


def calibration_error(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Return the expected calibration error: mean distance of confidence and accuracy of bins, weighted by samples."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    probabilities = np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)
    confidence, right = probabilities.max(1), logits.argmax(1) == labels
    places = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [abs(confidence[places == b].sum() - right[places == b].sum()) for b in range(_BINS)]
    return float(sum(gaps) / len(labels))
