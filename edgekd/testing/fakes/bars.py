"""A tiny task and its teacher: networks learn it in a fraction of a second."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.records import Digest, digest_bytes
from edgekd.students.resnet import ResNetModule
from edgekd.students.trunk import Sizes
from edgekd.tasks._protocol import HeadSpec, InputSpec, Score, Split, SplitName, TaskSpec

__all__ = ["BarTask", "BarTeacher", "OpenBarTeacher"]

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


class OpenBarTeacher:
    """A network with two stages, untrained, that can be looked into. Counts the images it was asked about."""

    name, classes = "open bar", 3

    def __init__(self, seed: int = 0) -> None:
        self.images, self._seed = 0, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._network = ResNetModule(Sizes(channels=1, widths=[12, 20], depths=[1, 1], stem_stride=1), classes=3)
        self._network.eval().requires_grad_(False)
        self._network.register_forward_pre_hook(lambda _m, inputs: self._count(len(inputs[0])))

    def digest(self) -> Digest:
        """Digest of its seed."""
        return digest_bytes(f"open bar teacher {self._seed}".encode())

    def network(self) -> nn.Module:
        """Network from (N, 1, 8, 8) to (N, 3)."""
        return self._network

    def prepared(self, batch: Tensor) -> Tensor:
        """Normalised."""
        return (batch - 60.0) / 60.0

    def rows(self, answers: object) -> Tensor:
        """Rows as they are."""
        assert isinstance(answers, Tensor)
        return answers

    def logits(self, batch: Tensor) -> Tensor:
        """(N, 1, 8, 8) raw pixels to (N, 3)."""
        with torch.inference_mode():
            answers: Tensor = self._network(self.prepared(batch))
        return answers.clone()

    def _count(self, images: int) -> None:
        self.images += images
