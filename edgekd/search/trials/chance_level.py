"""Detection of candidates at chance: after too short a training they can't be ranked."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["at_chance"]

_SIGMA = 2.0  # standard deviations of a proportion over the samples


def at_chance(scores: Sequence[float], labels: NDArray[np.int64]) -> str:
    """Return a caution where no top-1 is above the share of the largest class (N,) by more than noise; else ``""``."""
    if not scores or not len(labels):
        return ""
    chance = float(np.bincount(labels).max() / len(labels))
    if max(scores) > chance + _SIGMA * math.sqrt(chance * (1 - chance) / len(labels)):
        return ""
    who = f"the first {len(scores)} candidates score" if len(scores) > 1 else "the first candidate scores"
    scores_text = f"{who} {max(scores):.0%} at most, and guessing {chance:.0%}"
    return f"{scores_text}: raise the epochs of search.accuracy, so that candidates can be ranked"
