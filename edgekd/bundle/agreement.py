"""Agreement of two answers to a sample, for whoever has a bundle's samples and no student.

Stricter parity, against the student's raw answers, was checked before the bundle was written (`export.parity_heads`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekd.tasks._protocol import HeadSpec, Rows, TaskSpec

__all__ = ["agreeing", "largest_difference"]

_PIXELS = 0.995  # of a class map: at the edge of two classes either may win
_SIDE = 0.05  # of the largest logit: nearer to 0, a label may be told on either side
_NUMBER = 0.1  # of a number's deviation
_CLEAR, _SCORE, _OVERLAP = 0.3, 0.1, 0.8  # a detection that counts, and how near another one is the same


def agreeing(spec: TaskSpec, answers: Rows, expected: Rows) -> NDArray[np.bool_]:
    """Agreement by sample (N,): the same largest logit, nearly the same map, a counterpart for each clear detection.

    Every label on the same side of 0, every number nearly the same.
    """
    if spec.plain:
        return np.asarray(np.argmax(answers, axis=1) == np.argmax(expected, axis=1), bool)
    return np.asarray(np.stack([_agreeing(head, answers, expected) for head in spec.heads]).all(axis=0), bool)


def largest_difference(spec: TaskSpec, answers: Rows, expected: Rows) -> float:
    """Largest difference between two logits, scores or numbers of the answers."""
    if spec.plain:
        return float(np.max(np.abs(answers - expected)))
    names = {"classification": "", "multilabel": "", "regression": "", "detection": ".scores"}
    fields = [head.name + names[head.kind] for head in spec.heads if head.kind in names]
    return max((float(np.max(np.abs(answers[name] - expected[name]))) for name in fields), default=0.0)


def _agreeing(head: HeadSpec, answers: Rows, expected: Rows) -> NDArray[np.bool_]:
    if head.kind == "classification":
        return np.asarray(answers[head.name].argmax(1) == expected[head.name].argmax(1))
    if head.kind == "multilabel":
        near = np.abs(expected[head.name]) <= _SIDE * np.abs(expected[head.name]).max(initial=0.0)
        same = (answers[head.name] > 0) == (expected[head.name] > 0)
        return np.asarray(((same | near) & np.isfinite(answers[head.name])).all(axis=1))
    if head.kind == "regression":
        far = np.abs(answers[head.name] - expected[head.name]) / np.asarray(head.std, np.float32)
        return np.asarray((far <= _NUMBER).all(axis=1))
    if head.kind == "segmentation":
        alike = (answers[head.name] == expected[head.name]).mean(axis=(1, 2))
        return np.asarray(alike >= _PIXELS, bool)
    return np.asarray(
        [
            _covered(head, one, other) and _covered(head, other, one)
            for one, other in zip(answers, expected, strict=True)
        ]
    )


def _covered(head: HeadSpec, one: np.void, other: np.void) -> bool:
    """True where each clear detection of one has its like in the other."""
    boxes, scores, kinds = (other[f"{head.name}.{part}"] for part in ("boxes", "scores", "classes"))
    for box, score, kind in zip(*(one[f"{head.name}.{part}"] for part in ("boxes", "scores", "classes")), strict=True):
        alike = (kinds == kind) & (np.abs(scores - score) <= _SCORE) & (_overlap(box, boxes) >= _OVERLAP)
        if score >= _CLEAR and not alike.any():
            return False
    return True


def _overlap(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    areas = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1) + np.clip(box[2:] - box[:2], 0, None).prod()
    return np.asarray(shared / np.maximum(areas - shared, 1e-9))
