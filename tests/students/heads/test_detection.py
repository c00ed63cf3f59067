"""Objects as points: what a decoder makes of a heat map laid out by hand."""

from __future__ import annotations

import torch

from edgekd.students.heads.detection import DetectionDecoder, boxes_of
from edgekd.tasks._protocol import HeadSpec

HEAD = HeadSpec(name="things", kind="detection", classes=2, objects=3)


def test_peaks_become_boxes_in_falling_order() -> None:
    heat, box = torch.full((1, 2, 4, 6), -8.0), torch.zeros(1, 4, 4, 6)
    heat[0, 1, 1, 2], heat[0, 1, 1, 3] = 3.0, 2.0  # the neighbour is no peak
    heat[0, 0, 3, 5] = 1.0
    box[0, :, 1, 2] = torch.tensor([0.5, 0.25, 2.0, 1.0])
    box[0, :, 3, 5] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    boxes, scores, kinds = DetectionDecoder(HEAD, (16, 24))(heat, box)
    assert boxes.shape == (1, 3, 4)
    assert kinds[0, :2].tolist() == [1, 0]
    assert kinds.dtype == torch.int32
    assert torch.allclose(scores[0, :2], torch.sigmoid(torch.tensor([3.0, 1.0])))
    assert boxes[0, 0].tolist() == [6.0, 3.0, 14.0, 7.0]  # (2.5, 1.25) -+ (1, 0.5), in cells of 4 pixels
    assert boxes[0, 1].tolist() == [18.0, 10.0, 22.0, 14.0]


def test_where_there_is_no_peak_there_is_no_score() -> None:
    ramp = torch.arange(16.0).reshape(1, 1, 4, 4)
    one = HEAD.but(classes=1)
    _, scores, _ = DetectionDecoder(one, (16, 16))(ramp, torch.zeros(1, 4, 4, 4))
    assert (scores[0] > 0).tolist() == [True, False, False]


def test_fewer_cells_than_objects() -> None:
    boxes, scores, kinds = DetectionDecoder(HEAD, (4, 4))(torch.zeros(2, 2, 1, 1), torch.zeros(2, 4, 1, 1))
    assert boxes.shape[:2] == scores.shape == kinds.shape == (2, HEAD.objects)
    assert kinds.dtype == torch.int32
    assert scores.tolist() == [[0.5, 0, 0]] * 2


def test_cells_need_not_be_square() -> None:
    box = torch.zeros(1, 4, 2, 4)
    box[:, 2:] = 1.0
    assert boxes_of(box, (8, 8))[0, :, 1, 3].tolist() == [5.0, 2.0, 7.0, 6.0]
