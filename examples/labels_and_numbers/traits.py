"""A task in Python with three answers for a picture: which digit, which labels it has, and a number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgekd.records import digest_json
from edgekd.tasks._protocol import HeadSpec, MetricSpec, Rows, Score, Split, SplitName, TaskSpec
from edgekd.tasks.digits import Digits
from edgekd.tasks.metrics.heads import metric_name, score_heads
from edgekd.tasks.rows import label_rows
from edgekd.tasks.splits import digest_arrays

LABELS = {"odd": (1, 3, 5, 7, 9), "closed": (0, 6, 8, 9), "small": (0, 1, 2, 3, 4)}  # "closed": it has a loop


class Traits:
    """Handwritten digits of 8 x 8 pixels, of which more is asked than which they are."""

    def __init__(self) -> None:
        self._digits = Digits()
        ink = self._ink(self._digits.split("train"))
        self.heads = (
            HeadSpec(name="digit", classes=10, labels=tuple("0123456789")),
            HeadSpec(name="traits", kind="multilabel", classes=len(LABELS), labels=tuple(LABELS)),
            HeadSpec(
                name="ink", kind="regression", classes=1, labels=("ink",), mean=(ink.mean(),), std=(ink.std(),),
                invariant=True,  # a digit moved by a pixel has as good as as much of it
            ),
        )  # fmt: skip
        digits = self._digits.spec
        self.spec = TaskSpec(
            name="traits",
            kind="traits",
            input=digits.input,
            head=self.heads[0],
            more=self.heads[1:],
            metric=MetricSpec(name=metric_name(self.heads)),
            data=digest_json([digits.data, "traits", 1]),  # another number when the labels change
        )

    def split(self, name: SplitName) -> Split:
        """One part of the data, a field of labels a head."""
        part = self._digits.split(name)
        traits = np.stack([np.isin(part.labels, members) for members in LABELS.values()], axis=1)
        rows = label_rows(self.heads, {"digit": part.labels, "traits": traits, "ink": self._ink(part)})
        return replace(part, labels=rows, digest=digest_arrays(part.inputs, rows))

    def score(self, outputs: Rows, labels: Rows) -> Score:
        """The mean of top-1, macro average precision and R2."""
        return score_heads(self.heads, outputs, labels)

    @staticmethod
    def _ink(part: Split) -> NDArray[np.float64]:
        """The mean of a picture's pixels (N, 1), from 0 to 16."""
        return part.inputs.astype(np.float64).mean((1, 2, 3))[:, None]


def task() -> Traits:
    """What `module: traits.py:task` calls."""
    return Traits()
