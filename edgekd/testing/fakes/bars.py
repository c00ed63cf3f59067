"""A tiny task and its teacher: networks learn it in a fraction of a second."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgekd.records import Digest, digest_bytes
from edgekd.tasks._protocol import HeadSpec, InputSpec, Score, Split, SplitName, TaskSpec

__all__ = ["BarTask", "BarTeacher"]

_SPLITS: dict[SplitName, tuple[int, int]] = {
    "train": (90, 0),
    "validation": (30, 1),
    "calibration": (16, 2),
    "test": (30, 3),
}
"""Samples and seed of each split."""


class BarTask:
    """Three classes told apart by where a bright bar lies in an 8 x 8 image; 90 samples to train on."""

    def __init__(self) -> None:
        self.spec = TaskSpec(
            name="bars",
            input=InputSpec(shape=(1, 8, 8), mean=(60.0,), std=(60.0,)),
            head=HeadSpec(classes=3),
            data=digest_bytes(b"bars"),
        )

    def split(self, name: SplitName) -> Split:
        """Generated anew each time, the same from each seed."""
        count, seed = _SPLITS[name]
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 3, count)
        inputs = rng.integers(0, 120, (count, 1, 8, 8)).astype(np.uint8)
        for image, label in zip(inputs, labels, strict=True):
            image[0, 1 + 2 * label : 3 + 2 * label] += 100
        return Split(name, inputs, labels, digest_bytes(inputs.tobytes() + labels.tobytes()))

    def score(self, outputs: NDArray[np.floating], labels: NDArray[np.int64]) -> Score:
        """Top-1."""
        correct = outputs.argmax(1) == labels
        return Score(metric="top1", value=float(correct.mean()), samples=len(labels), correct=tuple(map(bool, correct)))


class BarTeacher:
    """Knows where to look. Counts how many images it was asked about."""

    name, classes = "bar", 3

    def __init__(self) -> None:
        self.images = 0

    def digest(self) -> Digest:
        """Always the same."""
        return digest_bytes(b"bar teacher")

    def logits(self, batch: Tensor) -> Tensor:
        """(N, 1, 8, 8) raw pixels to (N, 3)."""
        self.images += len(batch)
        return (batch[:, 0, 1:7].reshape(len(batch), 3, 2, 8).mean((2, 3)) / 20).float()
