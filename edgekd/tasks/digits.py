"""`digits`: 1,797 handwritten digits of 8 x 8 pixels, 0..16, included in scikit-learn (Alpaydin & Kaynak 1998).

Small enough that a whole search on it takes minutes. About 360 samples are test, 270 validation; 128 of the others are
calibration too.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from edgekd.tasks._protocol import HeadSpec, InputSpec, Score, TaskSpec
from edgekd.tasks.carved import CarvedTask
from edgekd.tasks.labelled import CarvedImages, LabelledImages, statistics
from edgekd.tasks.score import top1
from edgekd.tasks.splits import carve, content_keys

__all__ = ["Digits"]

_TEST, _VALIDATION = 360, 270


class Digits(CarvedTask):
    """Options of `digits`. One input (1, 8, 8) uint8 in 0..16; ten classes; metric top-1, higher is better."""

    calibration: PositiveInt = 128
    train_limit: PositiveInt | None = None

    def _described(self) -> TaskSpec:
        mean, std = statistics(self.split("train").inputs, per_channel=False)
        return TaskSpec(
            name="digits",
            input=InputSpec(shape=(1, 8, 8), raw_range=(0.0, 16.0), mean=mean, std=std),
            head=HeadSpec(classes=10, labels=tuple("0123456789")),
            data=self._data.data,
        )

    def score(self, outputs: NDArray[np.floating], labels: NDArray[np.int64]) -> Score:
        """Return top-1 of outputs (N, 10). Raises ValueError if shapes don't match."""
        return top1(outputs, labels)

    def _carve(self) -> CarvedImages:
        images = _images()
        test, rest = carve(content_keys(images.inputs), images.labels, [_TEST])
        train = images.take(rest)
        return CarvedImages(
            what="digits",
            train=train,
            test=lambda: images.take(test),
            validation=None,
            validation_fraction=_VALIDATION / len(train),
            calibration_count=self.calibration,
            train_limit=self.train_limit,
        )


@cache
def _images() -> LabelledImages:
    from sklearn.datasets import load_digits  # scikit-learn takes a second to import

    found = load_digits()
    return LabelledImages(found.images.astype(np.uint8)[:, None], found.target.astype(np.int64))
