"""A task that is learned in a fraction of a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekd.records import digest_bytes
from edgekd.search._protocol import EstimateContext
from edgekd.students._protocol import Family, Stage
from edgekd.tasks._protocol import HeadSpec, InputSpec, Score, Split, SplitName, TaskSpec


class Bars:
    """Three classes told apart by where a bright bar lies in an 8 x 8 image."""

    spec = TaskSpec(
        name="bars",
        input=InputSpec(shape=(1, 8, 8), mean=(60.0,), std=(60.0,)),
        head=HeadSpec(classes=3),
        data=digest_bytes(b"bars"),
    )

    def split(self, name: SplitName) -> Split:
        count, seed = {"train": (96, 0), "validation": (40, 1), "calibration": (16, 2), "test": (30, 3)}[name]
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 3, count)
        inputs = rng.integers(0, 120, (count, 1, 8, 8)).astype(np.uint8)
        for image, label in zip(inputs, labels, strict=True):
            image[0, 1 + 2 * label : 3 + 2 * label] += 100
        return Split(name, inputs, labels, digest_bytes(inputs.tobytes() + labels.tobytes()))

    def score(self, outputs: Any, labels: Any) -> Score:
        correct = outputs.argmax(1) == labels
        return Score(metric="top1", value=float(correct.mean()), samples=len(labels))


@pytest.fixture(scope="session")
def bars() -> Bars:
    """The task itself."""
    return Bars()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Nets this small are slower on several threads, and much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def context_of() -> Callable[[Family, Sequence[Stage]], Callable[[Path], EstimateContext]]:
    """A maker of contexts under a folder."""

    def of(family: Family, recipe: Sequence[Stage]) -> Callable[[Path], EstimateContext]:
        return lambda folder: EstimateContext(
            task=Bars(),
            teacher=None,
            family=family,
            recipe=recipe,
            fingerprint=None,
            students=folder / "students",
            stages=folder / "stages",
            cache=folder / "cache",
            seed=0,
            progress=lambda _: None,
            stop=lambda: False,
        )

    return of
