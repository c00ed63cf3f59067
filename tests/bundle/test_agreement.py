"""Agreement of two answers, without the student."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.bundle.agreement import agreeing, largest_difference
from edgekd.tasks.shapes import Shapes
from edgekd.testing.contracts.task import perfect_answers
from edgekd.testing.fakes.spots import SpotTask

TASK = Shapes(train=12, test=4, validation=4, calibration=4, side=32)
ROWS = perfect_answers(TASK.spec, TASK.split("validation").labels)


def test_equal_answers_agree() -> None:
    assert agreeing(TASK.spec, ROWS, ROWS.copy()).all()
    assert largest_difference(TASK.spec, ROWS, ROWS.copy()) == 0.0


def test_order_of_detections_does_not_matter_and_what_they_say_does() -> None:
    other = ROWS.copy()
    for part in ("boxes", "scores", "classes"):
        other[f"things.{part}"] = other[f"things.{part}"][:, ::-1]
    assert agreeing(TASK.spec, ROWS, other).all()
    other["things.classes"] = (other["things.classes"] + 1) % 3
    assert not agreeing(TASK.spec, ROWS, other).any()


def test_a_few_pixels_and_a_lost_scene() -> None:
    other = ROWS.copy()
    other["mask"][:, 0, :5] = (other["mask"][:, 0, :5] + 1) % 4  # five of 1,024
    assert agreeing(TASK.spec, ROWS, other).all()
    other["mask"][0] = (other["mask"][0] + 1) % 4
    assert agreeing(TASK.spec, ROWS, other).tolist() == [False, True, True, True]
    other = ROWS.copy()
    other["scene"] = np.roll(other["scene"], 1, axis=1)
    assert not agreeing(TASK.spec, ROWS, other).any()


def test_labels_agree_by_side_and_numbers_within_a_tenth_of_their_deviation() -> None:
    task = SpotTask()
    rows = perfect_answers(task.spec, task.split("validation").labels)
    rows["labels"] *= 10
    assert agreeing(task.spec, rows, rows.copy()).all()
    other = rows.copy()
    other["labels"][0, 1] *= -1
    other["numbers"][1, 0] += 11
    other["numbers"][2, 0] += 13
    other["numbers"][3, 1] = np.nan
    assert np.flatnonzero(~agreeing(task.spec, other, rows)).tolist() == [0, 2, 3]
    near = rows.copy()
    near["labels"][4, 0] = 0.2
    other = near.copy()
    other["labels"][4, 0] = -0.2
    assert agreeing(task.spec, other, near).all()
    assert largest_difference(task.spec, other, near) == pytest.approx(0.4)
