"""What a task is: data, splits and a metric. Numpy only; torch comes in with training.

Images are channel-first everywhere inside edgekd; `InputSpec` says how raw values become what a student sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from edgekd.records import Digest, Record

__all__ = ["HeadSpec", "InputSpec", "MetricSpec", "Score", "Split", "SplitName", "Task", "TaskSpec"]

SplitName = Literal["train", "validation", "calibration", "test"]


class InputSpec(Record):
    """One input, without its batch axis. A student sees ``(raw - mean) / std``, per channel, in raw units."""

    name: str = "image"
    shape: tuple[PositiveInt, ...]  # (C, H, W)
    raw_dtype: Literal["uint8", "float32"] = "uint8"
    raw_range: tuple[float, float] = (0.0, 255.0)
    mean: tuple[float, ...] = (0.0,)  # one value, or one a channel
    std: tuple[float, ...] = (1.0,)


class HeadSpec(Record):
    """One answer of a student."""

    name: str = "logits"
    kind: Literal["classification"] = "classification"
    classes: int
    labels: tuple[str, ...] = ()  # names, in order; empty where unknown


class MetricSpec(Record):
    """What a score means. More is better, everywhere: of an error rate, give what is right."""

    name: str = "top1"
    higher_is_better: Literal[True] = True


class TaskSpec(Record):
    """Everything a student, an exporter or a report needs to know about a task without touching its data."""

    name: str
    kind: str = "image-classification"
    input: InputSpec
    head: HeadSpec
    metric: MetricSpec = MetricSpec()
    data: Digest  # of the content of all splits
    flip: bool = False  # whether a mirrored image keeps its label


@dataclass(frozen=True)
class Split:
    """Samples of one part of the data. ``digest`` covers inputs and labels, in order."""

    name: SplitName
    inputs: NDArray[np.generic]  # (N, C, H, W), raw values in raw_dtype
    labels: NDArray[np.int64]  # (N,)
    digest: Digest

    def __len__(self) -> int:
        return len(self.labels)


class Score(Record):
    """A metric's value over some samples. ``correct`` is kept, so that two models can be compared in pairs."""

    metric: str
    value: float
    samples: int
    correct: tuple[bool, ...] = ()


class Task(Protocol):
    """Data, splits and metric. Splits are disjoint by content; ``test`` is read for the certificate alone."""

    @property
    def spec(self) -> TaskSpec:
        """Inputs, heads, metric and the data's identity."""
        ...

    def split(self, name: SplitName) -> Split:
        """One part of the data. The same on every machine."""
        ...

    def score(self, outputs: NDArray[np.floating], labels: NDArray[np.int64]) -> Score:
        """Score raw outputs (N, classes) against labels (N,). Raises ValueError on shapes that don't match."""
        ...
