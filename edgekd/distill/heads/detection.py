"""Detection head (objects as points): targets and losses of heat map and boxes (Zhou et al.

2019, arXiv 1904.07850, section 3).

Heat: penalty-reduced focal loss with alpha 2, beta 4 over cells, divided by the number of objects. The heat of an
object falls off with its own size (Liu et al. 2020, "Training-time-friendly network", arXiv 1909.00700: sigma = 0.54 /
6 of width and height). Boxes: 1 - GIoU (Rezatofighi et al. 2019, arXiv 1902.09630) at the cells of centres and where
the heat is at least half, which ranks well at high overlap thresholds; the paper's L1 distances of offset and size are
left out.

Distillation compares heat cell by cell and class by class, each a binary label, where student or teacher detects
something; elsewhere both agree on nothing. Boxes are compared where the teacher detects an object, weighted by its
confidence.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgekd.distill.heads._protocol import HeadLogits
from edgekd.students.heads.detection import boxes_of
from edgekd.tasks._protocol import HeadSpec
from edgekd.tasks.rows import NOTHING, UNKNOWN

__all__ = ["DetectionTraining", "heat_targets"]

_SPREAD = 0.54 / 6  # sigma over the side of a box, but never below 0.3 cells
_SEES = 0.05  # a probability: below it, nothing is seen
_BOX_WEIGHT = 2.0
_SURE = 0.5


class DetectionTraining:
    """Raw outputs: heat (N, classes, h, w) and box (N, 4, h, w). Labels (N, M, 6), see `rows`.

    Boxes are in pixels of an image whose sides are whole multiples of the map's; the image size is not needed, since
    labels come in cells (`in_cells`).
    """

    def label_loss(self, head: HeadSpec, raw: Sequence[Tensor], labels: Tensor) -> Tensor | None:
        """Return the scalar loss over annotated samples; None if there are none. Boxes of labels are in cells."""
        heat, box = raw
        known = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
        if labels.shape[1]:
            known = labels[:, 0, 4] != UNKNOWN
        if not bool(known.any()):
            return None
        heat, box, labels = heat[known], box[known], labels[known]
        target, boxes, worth = heat_targets(labels, head.classes, (heat.shape[2], heat.shape[3]))
        objects = ((labels[:, :, 4] > NOTHING) & (labels[:, :, 5] == 0)).sum().clamp_min(1)
        return (_focal(heat, target) + _BOX_WEIGHT * _box_loss(box, boxes, worth)) / objects

    def comparison(
        self, head: HeadSpec, raw: Sequence[Tensor], teacher_raw: Sequence[Tensor], labels: Tensor
    ) -> HeadLogits | None:
        """Return binary logits (M, 1) of the cells and classes where student or teacher detects something."""
        del head, labels
        (heat, box), (sure, boxes) = raw, teacher_raw
        size = (heat.shape[2], heat.shape[3])
        if tuple(sure.shape[2:]) != size:
            return None
        likely = torch.sigmoid(sure)
        looked = (likely > _SEES) | (torch.sigmoid(heat.detach()) > _SEES)
        if not bool(looked.any()):
            return None
        student, teacher = heat[looked].unsqueeze(1), sure[looked].unsqueeze(1)
        worth = likely.amax(1) * (likely.amax(1) > _SEES)
        distance = (box - boxes).abs().sum(1)
        rest = (distance * worth).sum() / worth.sum().clamp_min(1.0)
        return HeadLogits(student, teacher, (teacher > 0).long(), rest, of="labels")


def heat_targets(labels: Tensor, classes: int, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the targets of a map for objects whose boxes are in cells: heat, boxes, weights.

    Heat (N, classes, h, w) in 0..1, exactly 1 in the cell of each centre, -1 where an ignored object lies. Boxes (N, 4,
    h, w): x1, y1, x2, y2 in cells of the object with the highest heat in each cell. Weights (N, h, w) of the boxes: 1
    in the cell of a centre, less around it.
    """
    height, width = size
    count = len(labels)
    rows = torch.arange(height, device=labels.device, dtype=torch.float32).view(1, height, 1)
    columns = torch.arange(width, device=labels.device, dtype=torch.float32).view(1, 1, width)
    heat = torch.zeros((count, classes, height, width), device=labels.device)
    boxes = torch.zeros((count, 4, height, width), device=labels.device)
    worth = torch.zeros((count, height, width), device=labels.device)
    covered = torch.zeros((count, height, width), dtype=torch.bool, device=labels.device)
    samples = torch.arange(count, device=labels.device)
    for place in range(labels.shape[1]):
        one = labels[:, place]
        there, counts = one[:, 4] > NOTHING, one[:, 5] == 0
        x, y = (one[:, 0] + one[:, 2]) / 2, (one[:, 1] + one[:, 3]) / 2
        column, row = (value.floor().clamp(0, most - 1).view(-1, 1, 1) for value, most in ((x, width), (y, height)))
        spread_x, spread_y = (
            ((one[:, high] - one[:, low]) * _SPREAD).clamp_min(0.3).view(-1, 1, 1) for low, high in ((0, 2), (1, 3))
        )
        own = torch.exp(-((columns - column) ** 2) / (2 * spread_x**2) - (rows - row) ** 2 / (2 * spread_y**2))
        own = own * (there & counts).view(-1, 1, 1)
        kind = one[:, 4].clamp_min(0).long()
        heat[samples, kind] = torch.maximum(heat[samples, kind], own)
        hotter = own > worth
        boxes = torch.where(hotter.unsqueeze(1), one[:, :4].view(-1, 4, 1, 1), boxes)
        worth = torch.where(hotter, own, worth)
        crowd = there & ~counts
        across = (columns + 1 > one[:, 0].view(-1, 1, 1)) & (columns < one[:, 2].view(-1, 1, 1))
        down = (rows + 1 > one[:, 1].view(-1, 1, 1)) & (rows < one[:, 3].view(-1, 1, 1))
        covered |= across & down & crowd.view(-1, 1, 1)
    # last, so that cells covered by a crowd are ignored whatever the order of objects
    heat = torch.where(covered.unsqueeze(1) & (heat < _SURE), -1.0, heat)
    return heat, boxes, torch.where(worth >= _SURE, worth, 0.0)


def _focal(heat: Tensor, target: Tensor) -> Tensor:
    """Return the focal loss summed over the cells that count."""
    likely, rarely = functional.logsigmoid(heat), functional.logsigmoid(-heat)
    centre = target >= 1.0 - 1e-4
    at_centre = -likely * rarely.exp() ** 2
    elsewhere = -rarely * likely.exp() ** 2 * (1 - target.clamp_min(0)) ** 4
    return torch.where(centre, at_centre, elsewhere * (target >= 0)).sum()


def _box_loss(box: Tensor, boxes: Tensor, worth: Tensor) -> Tensor:
    """Return 1 - GIoU summed over cells, weighted by ``worth``: a large object has more cells than a small one."""
    size = (box.shape[2], box.shape[3])
    predicted = boxes_of(box, size)  # an image whose pixels are the cells
    overlap = _generalised_iou(predicted, boxes)
    return ((1 - overlap) * worth).sum()


def _generalised_iou(one: Tensor, other: Tensor) -> Tensor:
    """Return GIoU (N, h, w) of boxes (N, 4, h, w) each, x1, y1, x2, y2. Negative sides count as 0."""
    low, high = torch.maximum(one[:, :2], other[:, :2]), torch.minimum(one[:, 2:], other[:, 2:])
    shared = (high - low).clamp_min(0).prod(1)
    areas = [(box[:, 2:] - box[:, :2]).clamp_min(0).prod(1) for box in (one, other)]
    union = (areas[0] + areas[1] - shared).clamp_min(1e-6)
    around = torch.maximum(one[:, 2:], other[:, 2:]) - torch.minimum(one[:, :2], other[:, :2])
    hull = around.clamp_min(0).prod(1).clamp_min(1e-6)
    return shared / union - (hull - union) / hull
