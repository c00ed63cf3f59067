"""mAP: perfect, wrong, and what is passed over."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.tasks.metrics.detection import mean_average_precision

LABELS = np.zeros((2, 2, 6), np.float32)
LABELS[:, :, 4] = -1
LABELS[0, 0] = (0, 0, 10, 10, 0, 0)
LABELS[1, 0] = (5, 5, 20, 25, 1, 0)
BOXES, SCORES, KINDS = LABELS[:, :, :4], np.array([[0.9, 0], [0.8, 0]], np.float32), np.array([[0, 0], [1, 0]])


def test_right_boxes_score_one() -> None:
    assert mean_average_precision(BOXES, SCORES, KINDS, LABELS, 2) == pytest.approx(1.0)


def test_other_classes_and_other_places_score_nothing() -> None:
    assert mean_average_precision(BOXES, SCORES, 1 - KINDS, LABELS, 2) == 0.0
    assert mean_average_precision(BOXES + 50, SCORES, KINDS, LABELS, 2) == 0.0
    assert mean_average_precision(BOXES, 0 * SCORES, KINDS, LABELS, 2) == 0.0


def test_half_an_overlap_counts_at_the_lowest_threshold_alone() -> None:
    half = BOXES.copy()
    half[:, :, 2] = half[:, :, 0] + (half[:, :, 2] - half[:, :, 0]) * 0.52  # IoU 0.52
    assert mean_average_precision(half, SCORES, KINDS, LABELS, 2) == pytest.approx(0.1)


def test_what_is_passed_over_is_no_mistake() -> None:
    labels = LABELS.copy()
    labels[1, 0, 5] = 1
    boxes, scores = BOXES.copy(), SCORES.copy()
    assert mean_average_precision(boxes, scores, KINDS, labels, 2) == pytest.approx(1.0)
    scores[1] = 0
    assert mean_average_precision(boxes, scores, KINDS, labels, 2) == pytest.approx(1.0)
