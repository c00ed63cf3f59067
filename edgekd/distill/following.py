"""How closely a student follows its teacher: agreement, overall and class by class, and the calibration error of both
(Guo et al. 2017, "On calibration of modern neural networks", ICML: 15 bins of equal width).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekd.store.records import ClassFollowed, Following

__all__ = ["calibration_error", "followed"]

_BINS = 15


def followed(
    student: NDArray[np.floating], teacher: NDArray[np.floating], labels: NDArray[np.int64], names: Sequence[str] = ()
) -> Following:
    """From logits of both (N, classes) and labels (N,), N >= 1. Without ``names`` a class is called by its number."""
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
    )


def calibration_error(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Mean distance between confidence and the share that is right, over bins of confidence, weighed by samples."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    probabilities = np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)
    confidence, right = probabilities.max(1), logits.argmax(1) == labels
    places = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [abs(confidence[places == b].sum() - right[places == b].sum()) for b in range(_BINS)]
    return float(sum(gaps) / len(labels))
