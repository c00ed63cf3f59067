"""Top-1."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.tasks._protocol import Score
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


def right(*answers: bool) -> Score:
    return Score(metric="top1", value=sum(answers) / len(answers), samples=len(answers), correct=answers)


@pytest.mark.parametrize(
    ("gained", "lost", "beats"),
    [(4, 0, False), (5, 0, True), (8, 2, False), (9, 2, True), (0, 0, False), (2, 9, False)],
)
def test_a_gain_is_told_from_chance_by_the_samples_that_differ(gained, lost, beats):
    """5 of 5 are 3.1 % by chance, 4 of 4 6.3 %; 9 of 11 3.3 %, 8 of 10 5.5 %."""
    same = (True,) * 20 + (False,) * 20
    before = right(*same, *[False] * gained, *[True] * lost)
    after = right(*same, *[True] * gained, *[False] * lost)
    assert after.beats(before) is beats
    assert not after.beats(before, level=0.001)


def test_of_equal_models_one_in_twenty_beats_the_other_at_most():
    rng, found = np.random.default_rng(0), 0
    for _ in range(400):
        one, other = (right(*(rng.random(300) < 0.8).tolist()) for _ in range(2))
        found += one.beats(other)
    assert 0.01 < found / 400 <= 0.05


def test_without_single_samples_the_value_decides():
    low, high = (Score(metric="R2", value=value, samples=10) for value in (0.5, 0.6))
    assert (high.beats(low), low.beats(high), low.beats(low)) == (True, False, False)
