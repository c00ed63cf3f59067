"""Protocol of tasks: data, splits and a metric. Numpy only; torch is imported by training.

Images are channel-first everywhere inside edgekd; `InputSpec` defines how raw values are normalised for a student.

A task has one head or several. One classification head is the plain case: labels are integers (N,), outputs are logits
(N, classes). Otherwise both are record arrays (N,) with one field for each head or output (layout in `rows.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from edgekd.records import Digest, Extended, Record
from edgekd.tasks.named_inputs import NamedInput, blank_packed, random_packed

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
"""Labels or outputs, one row for each sample: numbers for one classification head, else a record array (`rows.py`)."""


_MOST_AT_ONCE, _BYTES_AT_ONCE = 256, 2 * 1024**2


class PictureSpec(Record):
    """Conversion of a picture file to a raw sample by Pillow: orientation, mode, size.

    ``orientation: exif`` rotates by its EXIF tag, ``stored`` does not. ``fit: crop`` takes the largest centred part
    with the size's aspect ratio, ``stretch`` all of it. ``resampling`` is Pillow's filter of that name.
    """

    size: tuple[PositiveInt, PositiveInt]  # height, width
    fit: Literal["stretch", "crop"]
    mode: Literal["RGB", "L"] = "RGB"
    orientation: Literal["exif", "stored"] = "exif"
    resampling: Literal["bilinear"] = "bilinear"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a raw sample: (C, H, W)."""
        return (3 if self.mode == "RGB" else 1, *self.size)


class SoundSpec(Record):
    """Conversion of a WAV file to a raw sample: ``samples`` values from -1 to 1.

    A longer recording is cropped to its middle, a shorter one padded with zeros on both sides. ``channels: 1`` averages
    the file's channels. Files must have the sample rate (Hz).
    """

    rate: PositiveInt
    samples: PositiveInt
    channels: Literal[1, 2] = 1

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of a raw sample: (C, T)."""
        return (self.channels, self.samples)


class TextSpec(Record):
    """Conversion of a text to a raw sample: token ids by the ``tokenizer.json`` in a bundle.

    Ids are below ``vocabulary``; a short text is padded with the id ``padding``. ``tokenizer`` is the file's SHA-256.
    """

    vocabulary: PositiveInt
    padding: NonNegativeInt
    tokenizer: Digest


class InputSpec(Extended):
    """Input without its batch axis: an image (C, H, W), a signal (C, T), a text's token ids (T,), or several inputs.

    A student gets token ids unchanged; of images and signals it gets ``(raw - mean) / std``, by channel, in raw units.
    Several inputs are ``named``, packed as one sample (values,), and not normalised.
    `example` and `random` make such inputs; all code that traces, times or checks a module by calling it uses them.
    """

    added: ClassVar[frozenset[str]] = frozenset({"picture", "sound", "text", "named"})
    name: str = "image"
    shape: tuple[PositiveInt, ...]  # (C, H, W), (C, T), (T,) or (values,)
    raw_dtype: Literal["uint8", "float32", "int32"] = "uint8"
    raw_range: tuple[float, float] = (0.0, 255.0)
    mean: tuple[float, ...] = (0.0,)  # one value, or one a channel
    std: tuple[float, ...] = (1.0,)
    picture: PictureSpec | None = None  # None: raw samples don't come from picture files
    sound: SoundSpec | None = None  # None: they don't come from WAV files
    text: TextSpec | None = None  # None: they are no ids of tokens
    named: tuple[NamedInput, ...] = ()  # several inputs, in the order of their values; empty for one

    @classmethod
    def of_named(cls, named: Sequence[NamedInput], raw_range: tuple[float, float] = (0.0, 1.0)) -> Self:
        """Return the input of packed samples. ``raw_range`` is that of all their values."""
        size = sum(one.size for one in named)
        return cls(name="inputs", shape=(size,), raw_dtype="float32", raw_range=raw_range, named=tuple(named))

    @model_validator(mode="after")
    def _named_fill_it(self) -> Self:
        size = sum(one.size for one in self.named)
        if self.named and (self.shape, self.raw_dtype, self.mean, self.std) != ((size,), "float32", (0.0,), (1.0,)):
            raise ValueError(
                f"{len(self.named)} named inputs need shape ({size},), raw_dtype float32, mean 0 and std 1"
            )
        if self.named and (self.picture or self.sound or self.text):
            raise ValueError("named inputs are no picture, sound or text")
        if len({one.name for one in self.named}) < len(self.named):
            raise ValueError("named inputs need names of their own")
        return self

    @property
    def is_image(self) -> bool:
        """True if a sample has channels, rows and columns; False for (C, 1, T), which has no neighbouring rows."""
        return len(self.shape) == 3 and self.shape[1] > 1

    @property
    def what(self) -> str:
        """The samples' name in messages: ``images``, ``signals``, ``texts`` or ``samples``."""
        if self.named:
            return "samples"
        return "texts" if self.text is not None else "images" if self.is_image else "signals"

    @property
    def axes(self) -> str:
        """Axes of a sample, in words."""
        return {1: "T" if self.text is not None else "C", 2: "C x T", 3: "C x H x W"}[len(self.shape)]

    def __str__(self) -> str:
        return ", ".join(map(str, self.named)) or f"{' x '.join(map(str, self.shape))} ({self.axes})"

    def at_once(self, most_bytes: int = _BYTES_AT_ONCE) -> int:
        """Return the number of samples of one forward pass: at most 256, and at most ``most_bytes`` as float32.

        The default keeps activations in a CPU's caches, and below the 32 MiB of which glibc gives every block back: a
        MobileNetV2 at 128 pixels ran at 38 images a second in batches of 256, at 58 in batches of 32, and takes a
        quarter less CPU time in batches of 8 than of 21.
        """
        return max(1, min(_MOST_AT_ONCE, most_bytes // (4 * math.prod(self.shape))))

    def example(self, batch: int = 1) -> NDArray[Any]:
        """Return normalised zeros (batch, *shape), or ids."""
        if self.named:
            return blank_packed(self.named, batch)
        return np.zeros((batch, *self.shape), np.float32 if self.text is None else np.int32)

    def random(self, seed: int, batch: int = 1) -> NDArray[Any]:
        """Return normalised samples (batch, *shape), standard normal, or uniform ids."""
        if self.named:
            return random_packed(self.named, seed, batch)
        drawn = np.random.default_rng(seed)
        if self.text is not None:
            return drawn.integers(0, self.text.vocabulary, (batch, *self.shape), np.int32)
        return drawn.standard_normal((batch, *self.shape)).astype(np.float32)


class HeadSpec(Extended):
    """Output of a student: a class for the image or every pixel, objects with boxes, labels, or numbers.

    In segmentation the background is a class like any other; in detection it is none. `multilabel` predicts for each of
    ``classes`` labels whether it is present; `regression` predicts ``classes`` numbers, in a student as ``(number -
    mean) / std`` (both in the label's own units), in an exported file in the label's own units.
    """

    added: ClassVar[frozenset[str]] = frozenset({"objects", "mean", "std", "invariant"})
    name: str = "logits"
    kind: HeadKind = "classification"
    classes: int
    labels: tuple[str, ...] = ()  # names, in order; empty where unknown
    objects: NonNegativeInt = 0  # detection: how many an image has at the most
    mean: tuple[FiniteFloat, ...] = ()  # regression: of each number
    std: tuple[FiniteFloat, ...] = ()
    invariant: bool = False  # regression: labels stay valid if an augmentation moves pixels

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


class MetricSpec(Record):
    """Metric of a score. Higher is always better: for an error rate, give the share that is right."""

    name: str = "top1"
    higher_is_better: Literal[True] = True


class TaskSpec(Extended):
    """Description of a task for students, exporters and reports, without its data."""

    added: ClassVar[frozenset[str]] = frozenset({"more"})
    name: str
    kind: str = "image-classification"
    input: InputSpec
    head: HeadSpec
    more: tuple[HeadSpec, ...] = ()  # further heads on the same trunk
    metric: MetricSpec = MetricSpec()
    data: Digest  # of the content of all splits
    flip: bool = False  # a mirrored image keeps its label

    @model_validator(mode="after")
    def _names_heads(self) -> Self:
        names = [head.name for head in self.heads]
        if len(set(names)) < len(names):
            raise ValueError(f"heads need names of their own, found {', '.join(names)}")
        if both := {one.name for one in self.input.named} & set(names):
            raise ValueError(f"`{min(both)}` is the name of an input and of a head")
        if not self.plain and (odd := [name for name in names if not name.isidentifier()]):
            raise ValueError(f"head `{odd[0]}`: letters, digits and underscores only")
        return self

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """All heads, in the order of a student's outputs."""
        return (self.head, *self.more)

    @property
    def plain(self) -> bool:
        """True for one classification head only: labels (N,), outputs (N, classes)."""
        return not self.more and self.head.kind == "classification"


@dataclass(frozen=True)
class Split:
    """Samples of one split. ``digest`` covers inputs and labels, in order."""

    name: SplitName
    inputs: NDArray[np.generic]  # (N, C, H, W), raw values in raw_dtype
    labels: Rows  # (N,): int64, or a field a head
    digest: Digest

    def __len__(self) -> int:
        return len(self.labels)


class SplitSizes(Record):
    """Number of samples in each split. ``calibrated_on``: the split that calibration samples come from, if any.

    Calibration samples from training are training samples too; those from validation are excluded from it.
    ``validated_on``: the split that validation samples were taken out of.
    """

    train: NonNegativeInt
    validation: NonNegativeInt
    calibration: NonNegativeInt
    test: NonNegativeInt | None = None  # None: not counted, for that split is read by the certificate alone
    calibrated_on: Literal["train", "validation"] | None = None
    validated_on: Literal["train"] | None = None

    def __str__(self) -> str:
        """Format as ``624 train · 96 validation · 240 test · 128 calibration (of train)``."""
        parts = [f"{self.train:,} train", f"{self.validation:,} validation"]
        if self.test is not None:
            parts.append(f"{self.test:,} test")
        origin = f" (of {self.calibrated_on})" if self.calibrated_on == "train" else ""
        return " · ".join([*parts, f"{self.calibration:,} calibration{origin}"])


class Score(Record):
    """Value of a metric over some samples. ``correct`` is kept for paired comparison of two models."""

    metric: str
    value: float
    samples: int
    correct: tuple[bool, ...] = ()  # of a plain task
    parts: Mapping[str, float] = {}  # each head's own metric, where there are several: ``things mAP``
    errors: Mapping[str, float] = {}  # reported too, lower is better, in the label's own units: ``age MAE``

    def beats(self, other: Score, level: float = 0.05) -> bool:
        """Tell whether more of the same samples are right than in ``other``, beyond chance at this error rate.

        By the exact one-sided test of McNemar (1947) over the samples that one alone has right. By the value alone
        where the metric is not one of single samples.
        """
        if not self.correct or len(self.correct) != len(other.correct):
            return self.value > other.value
        differing = [mine for mine, its in zip(self.correct, other.correct, strict=True) if mine != its]
        count, gained = len(differing), sum(differing)
        as_many = sum(math.comb(count, more) for more in range(gained, count + 1))
        return bool(as_many / 2**count <= level)


@runtime_checkable
class CountedTask(Protocol):
    """Task that knows its split sizes without revealing the test split."""

    @property
    def sizes(self) -> SplitSizes:
        """Number of samples in each split."""
        ...


@runtime_checkable
class PreparableTask(Protocol):
    """Task whose data needs a preparation once, which may take long: decoding of pictures."""

    what: ClassVar[str]  # word for the data in messages: ``pictures``

    def prepare(self, progress: Callable[[int, int, str], None], stop: Callable[[], bool]) -> str:
        """Prepare the data if needed, and describe it in one line. ``progress(done, total, note)`` is called meanwhile.

        Raises Interrupted when ``stop()``; a second call resumes.
        """
        ...


@runtime_checkable
class Shipping(Protocol):
    """Task whose preprocessing needs files that a bundle must contain, such as a tokenizer's."""

    def shipped(self) -> Mapping[str, bytes]:
        """Return name and content of each file."""
        ...


@runtime_checkable
class OfFiles(Protocol):
    """Task whose samples are files."""

    def split_list(self) -> str:
        """Return the split of each file: a CSV of path, label, split."""
        ...


class Task(Protocol):
    """Data, splits and metric.

    Splits are disjoint by content, except calibration, which may be a part of training. ``test`` is used for the
    certificate only.
    """

    @property
    def spec(self) -> TaskSpec:
        """Inputs, heads, metric and the data's identity."""
        ...

    def split(self, name: SplitName) -> Split:
        """Return one split, the same on every machine."""
        ...

    def score(self, outputs: Rows, labels: Rows) -> Score:
        """Score outputs against labels, (N, classes) and (N,) for a plain task.

        Raises ValueError if shapes don't match.
        """
        ...


def sizes_of(task: Task) -> SplitSizes:
    """Return the number of samples in each split; of test only if the task counts it without revealing it."""
    if isinstance(task, CountedTask):
        return task.sizes
    return SplitSizes(
        train=len(task.split("train")),
        validation=len(task.split("validation")),
        calibration=len(task.split("calibration")),
    )
