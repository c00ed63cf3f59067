"""Top-1."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.tasks.score import top1


def test_counts_the_largest_output():
    outputs = np.array([[0.1, 0.9], [2.0, 1.0], [0.0, 3.0], [0.5, 0.5]], np.float32)
    score = top1(outputs, np.array([1, 0, 0, 0]))
    assert score.correct == (True, True, False, True)
    assert (score.value, score.samples, score.metric) == (0.75, 4, "top1")


def test_a_row_with_nan_is_wrong():
    outputs = np.array([[np.nan, 0.0], [1.0, 0.0]], np.float32)
    assert top1(outputs, np.array([0, 0])).correct == (False, True)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (3, 4, 1)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="match"):
        top1(np.zeros(shape, np.float32), np.zeros(3, np.int64))


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        top1(np.zeros((0, 3), np.float32), np.zeros(0, np.int64))
