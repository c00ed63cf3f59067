"""mIoU against a case by hand."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.tasks.metrics.segmentation import mean_intersection_over_union

LABELS = np.array([[[0, 0], [1, 255]]], np.uint8)


def test_by_hand() -> None:
    answers = np.array([[[0, 1], [1, 0]]], np.uint8)
    # class 0: one of two; class 1: one of two; the pixel of 255 doesn't count
    assert mean_intersection_over_union(answers, LABELS, 2) == pytest.approx(0.5)
    assert mean_intersection_over_union(LABELS % 255, LABELS, 2) == pytest.approx(1.0)
