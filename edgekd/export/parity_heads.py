"""Parity check of several heads: a file's decoded outputs against the student's raw outputs.

Decoding picks: the likeliest class of a pixel, the peaks of a heat map. An allowed difference of kernels may pick
otherwise where two come close, and must not everywhere else. So each pick of a file is looked up in the student's raw
outputs, which may differ by an allowed step each (as in `parity`: a share of the largest, or steps of the scale):

- logits of the image, and its numbers once they are standardised, differ by no more than the step;
- the predicted class of a pixel is, in the student, within two steps of the likeliest;
- a detection has a cell in the student whose logit and box equal its own, within a step, and which is a peak, or
  within two steps of one; and a peak that stands out by more than two steps, from its neighbours, from other classes of
  its cell and from the last one that is still reported, is among the detections.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edgekd.students.heads.detection import boxes_of
from edgekd.students.heads.many import raw_names
from edgekd.students.heads.regression import standardised
from edgekd.students.heads.segmentation import enlarged
from edgekd.tasks._protocol import HeadSpec, Rows, TaskSpec

__all__ = ["head_differences"]

_NOT_FOUND = 1e9
_LOGIT_SLOPE = 0.25  # the steepest of the logistic function


def head_differences(
    spec: TaskSpec, expected: Mapping[str, Tensor], steps: Mapping[str, float], found: Rows
) -> dict[str, NDArray[np.float64]]:
    """Difference of each sample's outputs from the student's, by head (N,), in allowed steps: more than 1 fails.

    ``expected`` are raw outputs by name, ``steps`` the allowed difference of each, ``found`` a file's outputs.
    """
    shape = spec.input.shape
    size = (shape[1], shape[2]) if len(shape) == 3 else (1, 1)  # only images have maps
    differences = {}
    for head in spec.heads:
        raw = [expected[name] for name in raw_names(head)]
        step = [steps[name] for name in raw_names(head)]
        if head.kind in ("classification", "multilabel"):
            gap = np.abs(found[head.name].astype(np.float64) - raw[0].numpy()) / step[0]
            differences[head.name] = _worst(gap)
        elif head.kind == "regression":
            found_objects = standardised(head, torch.from_numpy(found[head.name].astype(np.float64)))
            differences[head.name] = _worst((found_objects - raw[0]).abs().numpy() / step[0])
        elif head.kind == "segmentation":
            differences[head.name] = _pixels(raw[0], step[0], found[head.name], size)
        else:
            differences[head.name] = np.asarray(
                [_objects(head, [part[at : at + 1] for part in raw], step, found[at], size) for at in range(len(found))]
            )
    return differences


def _worst(gaps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest difference of each sample; a NaN differs by everything."""
    flat = np.nan_to_num(gaps.reshape(len(gaps), -1), nan=_NOT_FOUND, posinf=_NOT_FOUND)
    return np.asarray(flat.max(axis=1))


def _pixels(
    logits: Tensor, step: float, found_objects: NDArray[np.integer], size: tuple[int, int]
) -> NDArray[np.float64]:
    large = enlarged(logits, size)
    if found_objects.max(initial=0) >= large.shape[1]:
        return np.full(len(found_objects), _NOT_FOUND)
    of_found = large.gather(1, torch.from_numpy(found_objects.astype(np.int64)).unsqueeze(1)).squeeze(1)
    return _worst(((large.amax(1) - of_found) / (2 * step)).double().numpy())


def _objects(head: HeadSpec, raw: list[Tensor], steps: list[float], found: np.void, size: tuple[int, int]) -> float:
    """Largest difference of one sample's detections, in allowed steps."""
    heat, (heat_step, box_step) = raw[0][0], steps
    boxes = boxes_of(raw[1], size)[0].flatten(1).T  # (cells, 4)
    pixels = max(size[0] / heat.shape[1], size[1] / heat.shape[2])
    box_step = 1.5 * box_step * pixels + 1e-3  # a corner is a centre and half a side
    around = functional.max_pool2d(heat[None], 3, 1, 1)[0].flatten(1)
    flat = heat.flatten(1)
    short = (around - flat) / (2 * heat_step)  # of being a peak
    found_objects = [
        (torch.from_numpy(box.copy()), float(score), int(kind))
        for box, score, kind in zip(
            *(found[f"{head.name}.{part}"] for part in ("boxes", "scores", "classes")), strict=True
        )
        if score > 0 or np.isnan(score)
    ]
    worst = 0.0
    for box, score, kind in found_objects:
        if not 0 <= kind < head.classes or not np.isfinite(score) or not bool(torch.isfinite(box).all()):
            return _NOT_FOUND
        far = torch.stack(
            [
                (torch.sigmoid(flat[kind]) - score).abs() / (_LOGIT_SLOPE * heat_step + 1e-6),
                (boxes - box).abs().amax(1) / box_step,
                short[kind],
            ]
        ).amax(0)
        worst = max(worst, float(far.min()))
    return max(worst, _missed(heat, heat_step, boxes, box_step, found_objects, head.objects))


def _missed(
    heat: Tensor, step: float, boxes: Tensor, box_step: float, found_objects: list[tuple[Tensor, float, int]], most: int
) -> float:
    """1e9 where a peak that stands out clearly was not detected, 0 otherwise."""
    flat = heat.flatten(1)
    classes, cells = flat.shape
    neighbours = functional.unfold(
        functional.pad(heat[:, None], (1, 1, 1, 1), value=-torch.inf), 3
    )  # (classes, 9, cells)
    others = neighbours[:, [0, 1, 2, 3, 5, 6, 7, 8]].amax(1)
    peaks = flat - others > 2 * step
    maybe = flat - others > -2 * step
    rivals = torch.where(maybe, flat, -torch.inf)
    last = rivals.amax(0).topk(min(most + 1, cells)).values  # a cell detects one object at most
    floor = float(last[most]) if len(last) > most else -torch.inf
    for kind, cell in peaks.nonzero().tolist():
        value = flat[kind, cell]
        of_others = rivals[[other for other in range(classes) if other != kind], cell] if classes > 1 else None
        if of_others is not None and bool(of_others.amax() > value - 2 * step):
            continue
        if float(value) - floor <= 2 * step:
            continue
        score = float(torch.sigmoid(value))
        if not any(
            found_kind == kind
            and abs(found_score - score) <= _LOGIT_SLOPE * step + 1e-6
            and float((boxes[cell] - box).abs().max()) <= box_step
            for box, found_score, found_kind in found_objects
        ):
            return _NOT_FOUND
    return 0.0
