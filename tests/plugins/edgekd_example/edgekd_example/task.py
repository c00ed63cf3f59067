"""`stripes`: are the stripes of a noisy image horizontal or vertical? Made from a seed, so there is no file to read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from edgekd.records import Record, digest_json
from edgekd.tasks._protocol import HeadSpec, InputSpec, Score, Split, SplitName, TaskSpec
from edgekd.tasks.score import top1
from edgekd.tasks.splits import digest_arrays

COUNTS: dict[SplitName, int] = {"train": 256, "validation": 64, "calibration": 64, "test": 64}


class Stripes(Record):
    """Options of `stripes`. One input (1, side, side) uint8; two classes; metric top-1."""

    side: PositiveInt = 8
    seed: PositiveInt = 1

    @property
    def spec(self) -> TaskSpec:
        """Input, head, metric and the data's identity."""
        return TaskSpec(
            name="stripes",
            input=InputSpec(shape=(1, self.side, self.side), mean=(128.0,), std=(64.0,)),
            head=HeadSpec(classes=2, labels=("horizontal", "vertical")),
            data=digest_json([self.split(name).digest for name in COUNTS]),
        )

    def split(self, name: SplitName) -> Split:
        """Each split has a generator of its own; the noise keeps samples from meeting again in another."""
        random = np.random.default_rng([self.seed, list(COUNTS).index(name)])
        labels = random.integers(0, 2, COUNTS[name])
        stripes = np.where(np.arange(self.side) % 4 < 2, 64, 192)
        rows = np.broadcast_to(stripes[:, None], (self.side, self.side))
        images = np.where(labels[:, None, None] == 0, rows, rows.T) + random.integers(
            -48, 49, (1, self.side, self.side)
        )
        noise = random.integers(-16, 17, images.shape)
        inputs = np.clip(images + noise, 0, 255).astype(np.uint8)[:, None]
        return Split(name=name, inputs=inputs, labels=labels, digest=digest_arrays(inputs, labels))

    def score(self, outputs: NDArray[np.floating], labels: NDArray[np.int64]) -> Score:
        """Top-1 of outputs (N, 2). Raises ValueError on shapes that don't match."""
        return top1(outputs, labels)
