"""What a task is: data, splits and a metric. Numpy only; torch comes in with training.

Images are channel-first everywhere inside edgekd; `InputSpec` says how raw values become what a student sees.

A task asks one question or several. One classification head is the plain case: labels are whole numbers (N,), answers
are logits (N, classes). Otherwise both are record arrays (N,) with a field a head or output (`rows.py` lays them out).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from edgekd.records import Digest, Record

__all__ = [
    "CountedTask",
    "HeadKind",
    "HeadSpec",
    "InputSpec",
    "MetricSpec",
    "OfFiles",
    "PictureSpec",
    "PreparableTask",
    "Rows",
    "Score",
    "Shipping",
    "SoundSpec",
    "Split",
    "SplitName",
    "SplitSizes",
    "Task",
    "TaskSpec",
    "TextSpec",
    "sizes_of",
]

SplitName = Literal["train", "validation", "calibration", "test"]

HeadKind = Literal["classification", "segmentation", "detection", "multilabel", "regression"]

Rows = NDArray[Any]
"""Labels or answers, a row a sample: plain numbers for one classification head, else a record array (`rows.py`)."""


class PictureSpec(Record):
    """How a picture's file becomes a raw sample, by Pillow: turned, converted to a mode, brought to a size.

    ``orientation: exif`` turns it as its EXIF tag says, ``stored`` leaves it. ``fit: crop`` takes the largest part in
    the middle that has the size's aspect, ``stretch`` all of it. ``resampling`` is Pillow's filter of that name.
    """

    size: tuple[PositiveInt, PositiveInt]  # height, width
    fit: Literal["stretch", "crop"]
    mode: Literal["RGB", "L"] = "RGB"
    orientation: Literal["exif", "stored"] = "exif"
    resampling: Literal["bilinear"] = "bilinear"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a raw sample: (C, H, W)."""
        return (3 if self.mode == "RGB" else 1, *self.size)


class SoundSpec(Record):
    """How a WAV file becomes a raw sample: values of -1 to 1, as many as ``samples``.

    A recording that is longer gives its middle part, one that is shorter has zeros on both sides. Of ``channels: 1``
    those of the file are averaged. Files must have the sample rate (Hz).
    """

    rate: PositiveInt
    samples: PositiveInt
    channels: Literal[1, 2] = 1

    @property
    def shape(self) -> tuple[int, int]:
        """(C, T)."""
        return (self.channels, self.samples)


class TextSpec(Record):
    """How a text becomes a raw sample: the ids of its tokens, by the ``tokenizer.json`` that a bundle has.

    Ids are below ``vocabulary``; behind a short text comes the id ``padding``. ``tokenizer`` is the file's SHA-256.
    """

    vocabulary: PositiveInt
    padding: NonNegativeInt
    tokenizer: Digest


class InputSpec(Record):
    """One input, without its batch axis: an image (C, H, W), a signal (C, T) or the ids of a text's tokens (T,).

    Ids are what a student sees. Of images and signals it sees ``(raw - mean) / std``, per channel, in raw units.
    `example` and `random` make what it sees; whatever traces, times or checks a module by calling it takes its input
    from them.
    """

    name: str = "image"
    shape: tuple[PositiveInt, ...]  # (C, H, W), (C, T) or (T,)
    raw_dtype: Literal["uint8", "float32", "int32"] = "uint8"
    raw_range: tuple[float, float] = (0.0, 255.0)
    mean: tuple[float, ...] = (0.0,)  # one value, or one a channel
    std: tuple[float, ...] = (1.0,)
    picture: PictureSpec | None = None  # None: raw samples don't come from picture files
    sound: SoundSpec | None = None  # None: they don't come from WAV files
    text: TextSpec | None = None  # None: they are no ids of tokens

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As in `HeadSpec`."""
        return _without(handler(self), "picture", "sound", "text")

    @property
    def is_image(self) -> bool:
        """Whether a sample has channels, rows and columns."""
        return len(self.shape) == 3

    @property
    def axes(self) -> str:
        """What a sample's axes are, in words."""
        return {1: "T" if self.text is not None else "C", 2: "C x T", 3: "C x H x W"}[len(self.shape)]

    def example(self, batch: int = 1) -> NDArray[Any]:
        """Normalised zeros (batch, *shape), or ids."""
        return np.zeros((batch, *self.shape), np.float32 if self.text is None else np.int32)

    def random(self, seed: int, batch: int = 1) -> NDArray[Any]:
        """Normalised samples (batch, *shape), standard normal, or ids, any as often as another."""
        drawn = np.random.default_rng(seed)
        if self.text is not None:
            return drawn.integers(0, self.text.vocabulary, (batch, *self.shape), np.int32)
        return drawn.standard_normal((batch, *self.shape)).astype(np.float32)


class HeadSpec(Record):
    """One answer of a student: a class for the image or every pixel, objects with their boxes, labels, or numbers.

    Of segmentation the background is a class like any other; of detection it is none. `multilabel` says of each of
    ``classes`` labels whether it is there; `regression` tells ``classes`` numbers, which a student learns and answers
    as ``(number - mean) / std`` (both in the label's own units), and an exported file in the label's own units.
    """

    name: str = "logits"
    kind: HeadKind = "classification"
    classes: int
    labels: tuple[str, ...] = ()  # names, in order; empty where unknown
    objects: NonNegativeInt = 0  # detection: how many an image has at the most
    mean: tuple[FiniteFloat, ...] = ()  # regression: of each number
    std: tuple[FiniteFloat, ...] = ()
    invariant: bool = False  # regression: whether numbers stay as they are where a view moves pixels

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if (self.kind == "detection") != (self.objects > 0):
            raise ValueError(f"head `{self.name}`: `objects` is for detection, which needs it, and for nothing else")
        if self.kind == "segmentation" and self.classes > 255:
            raise ValueError(f"head `{self.name}`: {self.classes} classes, and a pixel has one of 255 at the most")
        numbers = self.kind == "regression"
        if not numbers and (self.mean or self.std or self.invariant):
            raise ValueError(f"head `{self.name}`: `mean`, `std` and `invariant` are for regression")
        if numbers and not len(self.mean) == len(self.std) == self.classes > 0:
            raise ValueError(f"head `{self.name}`: regression needs `mean` and `std` for each of its numbers")
        if numbers and min(self.std) <= 0:
            raise ValueError(f"head `{self.name}`: `std` must be above zero")
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Left out where unused, so that a classification task keeps the digest it always had."""
        return _without(handler(self), "objects", "mean", "std", "invariant")


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
    more: tuple[HeadSpec, ...] = ()  # further heads on the same trunk
    metric: MetricSpec = MetricSpec()
    data: Digest  # of the content of all splits
    flip: bool = False  # whether a mirrored image keeps its label

    @model_validator(mode="after")
    def _names_heads(self) -> Self:
        names = [head.name for head in self.heads]
        if len(set(names)) < len(names):
            raise ValueError(f"heads need names of their own, found {', '.join(names)}")
        if not self.plain and (odd := [name for name in names if not name.isidentifier()]):
            raise ValueError(f"head `{odd[0]}`: letters, digits and underscores only")
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As in `HeadSpec`."""
        return _without(handler(self), "more")

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """All of them, in the order of a student's answers."""
        return (self.head, *self.more)

    @property
    def plain(self) -> bool:
        """Whether there is one classification head and nothing else: labels (N,), answers (N, classes)."""
        return not self.more and self.head.kind == "classification"


def _without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in names or value}


@dataclass(frozen=True)
class Split:
    """Samples of one part of the data. ``digest`` covers inputs and labels, in order."""

    name: SplitName
    inputs: NDArray[np.generic]  # (N, C, H, W), raw values in raw_dtype
    labels: Rows  # (N,): int64, or a field a head
    digest: Digest

    def __len__(self) -> int:
        return len(self.labels)


class SplitSizes(Record):
    """How many samples each split has. ``calibrated_on``: where calibration samples come from, if from another split.

    Calibration samples taken from training are training samples too; those taken from validation are not validated on.
    ``validated_on``: the split that validation samples were carved out of, and are no part of any more.
    """

    train: NonNegativeInt
    validation: NonNegativeInt
    calibration: NonNegativeInt
    test: NonNegativeInt | None = None  # None: not counted, for that split is read by the certificate alone
    calibrated_on: Literal["train", "validation"] | None = None
    validated_on: Literal["train"] | None = None

    def __str__(self) -> str:
        """``624 train · 96 validation · 240 test · 128 calibration (of train)``."""
        parts = [f"{self.train:,} train", f"{self.validation:,} validation"]
        if self.test is not None:
            parts.append(f"{self.test:,} test")
        origin = f" (of {self.calibrated_on})" if self.calibrated_on == "train" else ""
        return " · ".join([*parts, f"{self.calibration:,} calibration{origin}"])


class Score(Record):
    """A metric's value over some samples. ``correct`` is kept, so that two models can be compared in pairs."""

    metric: str
    value: float
    samples: int
    correct: tuple[bool, ...] = ()  # of a plain task
    parts: Mapping[str, float] = {}  # each head's own metric, where there are several: ``things mAP``
    errors: Mapping[str, float] = {}  # told besides, less is better, in the label's own units: ``age MAE``


@runtime_checkable
class CountedTask(Protocol):
    """A task that knows how large its splits are without giving the test split away."""

    @property
    def sizes(self) -> SplitSizes:
        """How many samples each split has."""
        ...


@runtime_checkable
class PreparableTask(Protocol):
    """A task whose data has to be made ready once, which may take long: pictures are decoded."""

    what: ClassVar[str]  # what the data are: ``pictures``

    def prepare(self, progress: Callable[[int, int, str], None], stop: Callable[[], bool]) -> str:
        """Make it ready, or find it so, and say in a line what is there. ``progress(done, total, note)`` as it goes.

        Raises Interrupted when ``stop()``: called again it goes on from there.
        """
        ...


@runtime_checkable
class Shipping(Protocol):
    """A task whose raw samples are made by files that have to be in a bundle, such as a tokenizer's."""

    def shipped(self) -> Mapping[str, bytes]:
        """Each file's name and content."""
        ...


@runtime_checkable
class OfFiles(Protocol):
    """A task whose samples are files."""

    def split_list(self) -> str:
        """Which file is in which split: a CSV of path, label, split."""
        ...


class Task(Protocol):
    """Data, splits and metric.

    Splits are disjoint by content, but for calibration, which may be a part of training. ``test`` is read for the
    certificate alone.
    """

    @property
    def spec(self) -> TaskSpec:
        """Inputs, heads, metric and the data's identity."""
        ...

    def split(self, name: SplitName) -> Split:
        """One part of the data. The same on every machine."""
        ...

    def score(self, outputs: Rows, labels: Rows) -> Score:
        """Score answers against labels, (N, classes) and (N,) of a plain task.

        Raises ValueError on shapes that don't match.
        """
        ...


def sizes_of(task: Task) -> SplitSizes:
    """How many samples each split has; of test only where the task counts it without giving it away."""
    if isinstance(task, CountedTask):
        return task.sizes
    return SplitSizes(
        train=len(task.split("train")),
        validation=len(task.split("validation")),
        calibration=len(task.split("calibration")),
    )
