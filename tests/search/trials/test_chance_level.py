from __future__ import annotations

import numpy as np
import pytest

from edgekd.search.trials.chance_level import at_chance

LABELS = np.repeat(np.arange(10), 20)


@pytest.mark.parametrize(
    ("scores", "labels", "warned"),
    [
        ([0.08, 0.1, 0.09, 0.11], LABELS, True),
        ([0.13], LABELS, True),  # within the noise of 200 samples
        ([0.08, 0.2], LABELS, False),
        ([0.8], np.repeat([0, 1], [80, 20]), True),  # the larger class is what guessing gets
        ([], LABELS, False),
        ([0.1], LABELS[:0], False),
    ],
)
def test_scores_that_guessing_reaches_are_a_caution(scores, labels, warned):
    assert bool(at_chance(scores, labels)) is warned


def test_the_caution_says_what_to_do():
    said = at_chance([0.08, 0.08, 0.07, 0.08], LABELS)
    assert said.startswith("the first 4 candidates score 8% at most, and guessing 10%: raise the epochs")
