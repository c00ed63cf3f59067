"""A task of spots on a dark ground: which colours are there (`labels`), and how bright they are (`numbers`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from edgekd.tasks._protocol import HeadSpec, InputSpec, MetricSpec, Rows, Score, Split, SplitName, TaskSpec
from edgekd.tasks.metrics.heads import metric_name, score_heads
from edgekd.tasks.rows import ABSENT, label_rows
from edgekd.tasks.splits import digest_arrays

__all__ = ["LABELS", "NUMBERS", "SpotTask"]

LABELS = HeadSpec(name="labels", kind="multilabel", classes=3, labels=("red", "green", "blue"))
NUMBERS = HeadSpec(name="numbers", kind="regression", classes=2, mean=(1300.0, 0.4), std=(120.0, 0.2))

_COUNTS: dict[SplitName, int] = {"train": 48, "validation": 16, "calibration": 16, "test": 16}
_SIDE, _SPOT = 16, 4


class SpotTask:
    """Drawn anew, and the same each time. A tenth of all labels and numbers is not known."""

    def __init__(self, heads: Sequence[HeadSpec] = (LABELS, NUMBERS), flip: bool = True) -> None:
        self.heads, self._flip = tuple(heads), flip

    @cached_property
    def spec(self) -> TaskSpec:
        """Spec with the heads that it was made with."""
        return TaskSpec(
            name="spots",
            kind="spots",
            input=InputSpec(shape=(3, _SIDE, _SIDE), mean=(40.0,), std=(50.0,)),
            head=self.heads[0],
            more=self.heads[1:],
            metric=MetricSpec(name=metric_name(self.heads)),
            data=digest_arrays(*(self.split(name).labels for name in _COUNTS)),
            flip=self._flip,
        )

    def split(self, name: SplitName) -> Split:
        """A part of the data."""
        random = np.random.default_rng(list(_COUNTS).index(name))
        count = _COUNTS[name]
        images = random.integers(0, 40, (count, 3, _SIDE, _SIDE)).astype(np.uint8)
        labels = random.integers(0, 2, (count, 3)).astype(np.int8)
        for at, colour in np.argwhere(labels):
            row, column = random.integers(0, _SIDE - _SPOT, 2)
            images[at, colour, row : row + _SPOT, column : column + _SPOT] = random.integers(120, 255)
        pixels = images.reshape(count, -1).astype(np.float64)
        numbers = np.stack([1000 + 10 * pixels.mean(1), pixels.std(1) / 100], 1).astype(np.float32)
        labels[random.random(labels.shape) < 0.1] = ABSENT
        numbers[random.random(numbers.shape) < 0.1] = np.nan
        rows = label_rows(self.heads, {LABELS.name: labels, NUMBERS.name: numbers})
        return Split(name, images, rows, digest_arrays(images, rows))

    def score(self, outputs: Rows, labels: Rows) -> Score:
        """Score by the heads' own metrics."""
        return score_heads(self.heads, outputs, labels)
