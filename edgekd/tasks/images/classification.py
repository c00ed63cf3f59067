"""`image-classification`: a .npz file with x_train, y_train, x_test, y_test and, optionally, x_validation.

Labels are one class for each image (N,), integers 0 and 1 (N, C) for multilabel, or floats (N, C) for regression.
Images are uint8 or float32, channels first or last. The official test images are the test split; validation is carved
out of training unless the file has its own. A file without x_train needs x_validation, and students that learn without
images (`data-free`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import (
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from edgekd.code_references import ExistingFile
from edgekd.errors import ConfigurationError
from edgekd.records import Extended
from edgekd.tasks._protocol import (
    HeadSpec,
    InputSpec,
    MetricSpec,
    PictureSpec,
    Rows,
    Score,
    SoundSpec,
    TaskSpec,
)
from edgekd.tasks.arrays import Layout, images_of
from edgekd.tasks.carved import CarvedTask
from edgekd.tasks.labelled import CarvedImages, LabelledImages
from edgekd.tasks.metrics.heads import metric_name, score_heads
from edgekd.tasks.normalisation import Values, check_channels, check_pair, require_varied
from edgekd.tasks.npz import array_names, read_array
from edgekd.tasks.vectors import head_of

__all__ = ["ArrayImages", "ImageClassification", "Images", "names_of"]


_INPUT_NAMES = {2: "signal", 3: "image"}  # by the axes of a sample
_NEEDED = ("x_train", "y_train", "x_test", "y_test")


class Images(CarvedTask):
    """Options shared by tasks of labelled images.

    ``validation`` is the share of training images carved out if the data has no validation images. ``calibration`` and
    ``train_limit`` are numbers of images. ``mean`` and ``std`` are in raw units; by default they are computed from the
    training split (from calibration if there are no training images), as one value or (``per_channel``) one for each
    channel. With one value an exported integer model takes raw pixels without extra operators.
    """

    samples_are: ClassVar[str] = "image"

    metric: Literal["top1"] = "top1"
    validation: float = Field(default=0.1, gt=0.0, lt=1.0)
    calibration: PositiveInt = 512
    train_limit: PositiveInt | None = None
    mean: Values | None = None
    std: Values | None = None
    per_channel: bool = False
    flip: bool = False
    labels: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _paired(self) -> Self:
        check_pair(self.mean, self.std)
        return self

    def score(self, outputs: Rows, labels: Rows) -> Score:
        """Return top-1 of outputs (N, classes), or the metric of a multilabel or regression head.

        Raises ValueError if shapes don't match.
        """
        return score_heads([self.spec.head], outputs, labels)

    @abstractmethod
    def _title(self) -> str:
        """Return the task's name."""

    def _parted(self, train: LabelledImages, validation: LabelledImages, test: LabelledImages) -> CarvedImages:
        """Return the four splits of samples in three parts."""
        return CarvedImages(
            what=self._title(),
            train=train,
            test=lambda: test,
            validation=validation,
            validation_fraction=self.validation,
            calibration_count=self.calibration,
            train_limit=self.train_limit,
        )

    def _names(self) -> tuple[str, ...]:
        return self.labels

    def _of_labels(self, labels: Rows) -> HeadSpec | None:
        """Return the head for labels of more than one dimension; None for one class for each image."""
        del labels
        return None

    def _picture(self) -> PictureSpec | None:
        """Return the conversion from picture files to raw samples; None for other sources."""
        return None

    def _sound(self) -> SoundSpec | None:
        """Return the conversion from WAV files to raw samples; None for other sources."""
        return None

    def _raw_range(self) -> tuple[float, float]:
        """Return the range of float raw samples, over all splits but test."""
        return _range(self._data)

    @property
    def _data(self) -> CarvedImages:
        if self._carved is None:
            carved = self._carve()
            _check_same_shape(carved)
            _refuse_high_labels(carved, self._names())
            self._carved = carved
        return self._carved

    def _described(self) -> TaskSpec:
        data = self._data
        given, head = self._input(data.described), self._head()
        return TaskSpec(
            name=self._title(),
            kind=f"{'multi-input' if given.named else self.samples_are}-{head.kind}",
            input=given,
            head=head,
            metric=MetricSpec(name=metric_name([head])),
            data=data.data,
            flip=self.flip,
        )

    def _input(self, described: LabelledImages) -> InputSpec:
        """Return the input of samples like those ``described``. Raises ConfigurationError if they are all the same."""
        seen, mean, std = described.inputs, self.mean, self.std
        if mean is None or std is None:
            mean, std = described.moments(self.per_channel)
        check_channels(self._title(), mean, std, seen.shape[1])
        require_varied(self._title(), std)
        exact = seen.dtype == np.uint8
        return InputSpec(
            name=_INPUT_NAMES[len(seen.shape) - 1],
            shape=seen.shape[1:],
            raw_dtype="uint8" if exact else "float32",
            raw_range=(0.0, 255.0) if exact else self._raw_range(),
            mean=mean,
            std=std,
            picture=self._picture(),
            sound=self._sound(),
        )

    def _head(self) -> HeadSpec:
        """Return the classification head. Raises ConfigurationError for labels that can't be learnt."""
        title, data = self._title(), self._data
        if (several := self._of_labels(data.described.labels)) is not None:
            return several
        seen = np.unique(np.concatenate([data.split(name).labels for name in ("train", "validation", "calibration")]))
        classes, names = 1 + int(seen.max()), self._names()
        absent = np.setdiff1d(np.arange(classes), seen).tolist()  # no more classes than samples: `_refuse_high_labels`
        if (absent or classes == 1) and not names:
            raise ConfigurationError.one(
                f"{title}: labels are {int(seen.min())} to {int(seen.max())}, and no sample is of class "
                f"{', '.join(map(str, absent[:4] or [1]))}",
                "count classes from 0, without gaps; where a class really has no sample, name all with `labels`",
            )
        classes = max(classes, len(names))
        highest = data.highest_test_label
        if highest >= classes:
            raise ConfigurationError.one(
                f"{title}: a test label is {highest}, and the others go up to {classes - 1}",
                "all parts must have the same classes",
            )
        return HeadSpec(classes=classes, labels=names)


class ArrayImages(Images, Extended):
    """Options shared by tasks whose images are arrays x_train, y_train and so on.

    ``invariant``: regression labels stay valid if an augmentation moves pixels.
    """

    added: ClassVar[frozenset[str]] = frozenset({"invariant"})
    layout: Layout = "auto"
    invariant: bool = False

    @abstractmethod
    def _source(self) -> str:
        """Return the place of the arrays, for messages."""

    @abstractmethod
    def _arrays(self) -> Collection[str]:
        """Return the names of the source's arrays."""

    @abstractmethod
    def _part(self, name: str) -> LabelledImages:
        """Return the arrays x_NAME and y_NAME. Raises ConfigurationError if one is missing."""

    def _carve(self) -> CarvedImages:
        names = set(self._arrays())
        untaught = "x_validation" in names and not names & {"x_train", "y_train"}
        return CarvedImages(
            what=self._source(),
            train=None if untaught else self._part("train"),
            test=lambda: self._part("test"),
            validation=self._part("validation") if "x_validation" in names else None,
            validation_fraction=self.validation,
            calibration_count=self.calibration,
            train_limit=self.train_limit,
        )

    def _of_labels(self, labels: Rows) -> HeadSpec | None:
        if labels.dtype.names is not None:
            return head_of(labels, self._names(), self.invariant, self._title())
        if self.invariant:
            raise ConfigurationError.one(
                f"{self._title()}: `invariant` is for labels that are numbers, and these are classes",
                "leave it out: a class stays what it is where pixels move",
            )
        return None


class ImageClassification(ArrayImages):
    """Options of `image-classification`: the .npz file, and those shared with other image tasks."""

    data: ExistingFile

    @field_validator("data")
    @classmethod
    def _has_arrays(cls, path: Path) -> Path:
        """Check the names of arrays, the most frequent mistake, together with the project file's other errors."""
        try:
            names = array_names(path)
            if any(not {name, name.replace("train", "validation")} & set(names) for name in _NEEDED):
                raise ConfigurationError.one(
                    f"{path.name} has the arrays {', '.join(names) or '(none)'}; needed: {', '.join(_NEEDED)}",
                    f"name them so: numpy.savez(path, {', '.join(f'{name}=...' for name in _NEEDED)})",
                )
        except ConfigurationError as error:
            raise PydanticCustomError("edgekd_arrays", "{error}", {"error": error}) from error
        return path

    def _title(self) -> str:
        return self.data.stem

    def _names(self) -> tuple[str, ...]:
        if self.labels or "class_names" not in array_names(self.data):
            return self.labels
        return names_of(read_array(self.data, "class_names"), f"{self.data.name} class_names")

    def _source(self) -> str:
        return self.data.name

    def _arrays(self) -> Collection[str]:
        return array_names(self.data)

    def _part(self, name: str) -> LabelledImages:
        inputs, labels = (read_array(self.data, f"{letter}_{name}") for letter in "xy")
        return images_of(inputs, labels, self.layout, f"{self.data.name} {name}")


def names_of(names: object, where: str) -> tuple[str, ...]:
    """Return class names from an array or a list (C,). Raises ConfigurationError for other axes."""
    array = np.asarray(names)
    if array.ndim != 1:
        raise ConfigurationError.one(
            f"{where}: the names are an array {array.shape}", "a list of names is expected, one a class"
        )
    # HDF5 and old pickles keep names as bytes
    return tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in array.tolist())


def _range(data: CarvedImages) -> tuple[float, float]:
    parts = [data.split(name).inputs for name in ("train", "validation", "calibration") if len(data.split(name))]
    return min(float(part.min()) for part in parts), max(float(part.max()) for part in parts)


def _check_same_shape(carved: CarvedImages) -> None:
    parts = {"training": carved.train, "validation": carved.validation, "test": carved.test()}
    (first, one), *others = [(name, images) for name, images in parts.items() if images is not None]
    for name, images in others:
        found, expected = images.inputs, one.inputs
        if (found.shape[1:], found.dtype) != (expected.shape[1:], expected.dtype):
            raise ConfigurationError.one(
                f"{carved.what}: {name} samples are {found.dtype} {found.shape[1:]}, "
                f"{first} samples {expected.dtype} {expected.shape[1:]}",
                "all parts must have one shape and type",
            )
        if images.labels.dtype != one.labels.dtype:
            raise ConfigurationError.one(
                f"{carved.what}: {name} labels are {_label_kind(images.labels)}, "
                f"{first} labels {_label_kind(one.labels)}",
                "all parts must have labels of one kind, and as many",
            )


def _refuse_high_labels(carved: CarvedImages, names: Sequence[str]) -> None:
    """Raise ConfigurationError for labels above the number of classes.

    Unnamed classes have no gaps, so such a label is a mark or an id, not a class.
    """
    parts = {"train": carved.train, "validation": carved.validation, "test": carved.test()}
    found = {name: part.labels for name, part in parts.items() if part is not None and part.labels.dtype.names is None}
    samples = sum(map(len, found.values()))
    most, counted = (len(names), "label names") if names else (samples, "samples")
    for name, labels in found.items():
        if (high := np.flatnonzero(labels >= most)).size:
            raise ConfigurationError.one(
                f"{carved.what}: label {high[0]} of y_{name} is {labels[high[0]]}, and there are {most} {counted}",
                "count classes from 0, without gaps; leave out samples without a label",
            )


def _label_kind(labels: Rows) -> str:
    if labels.dtype.names is None:
        return "classes"
    (name,) = labels.dtype.names
    return f"{labels[name].shape[1]} {name}"
