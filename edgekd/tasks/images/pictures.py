"""Base of detection and segmentation tasks: annotated pictures from files, resized to one size.

Every picture is stretched to ``size`` (bilinear; masks by nearest pixel), together with its boxes: a student has one
input shape, and nothing is cut off. Boxes are clipped to the picture. Pictures are read once and stored as uint8.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from edgekd.errors import ConfigurationError
from edgekd.tasks._protocol import (
    HeadSpec,
    InputSpec,
    MetricSpec,
    PictureSpec,
    Rows,
    Score,
    TaskSpec,
)
from edgekd.tasks.carved import CarvedTask
from edgekd.tasks.images.decoding import framed, opened, picture_bytes
from edgekd.tasks.labelled import CarvedImages, LabelledImages, statistics
from edgekd.tasks.metrics.heads import metric_name, score_heads
from edgekd.tasks.normalisation import Values, check_channels, check_pair
from edgekd.tasks.rows import IGNORED, NOTHING, OBJECT_FIELDS, label_rows

__all__ = ["Annotation", "Pictures", "Thing", "read_mask", "read_picture"]


@dataclass(frozen=True)
class Thing:
    """Object: box in pixels of the picture's file, class, and whether it is ignored."""

    box: tuple[float, float, float, float]  # x1, y1, x2, y2
    kind: int
    ignored: bool = False


@dataclass(frozen=True)
class Annotation:
    """Annotated picture, in the file's own size."""

    picture: Path
    things: tuple[Thing, ...] = ()
    mask: NDArray[np.uint8] | None = None  # (H, W), classes; None where the task has no such head


class Pictures(CarvedTask):
    """Options shared by tasks of annotated pictures.

    ``size`` is height and width in pixels. ``mean`` and ``std`` are in raw units; by default they are computed from the
    training split. ``objects`` is the largest number of boxes that a student predicts for a picture.
    """

    size: tuple[PositiveInt, PositiveInt]
    validation: float = Field(default=0.1, gt=0.0, lt=1.0)
    calibration: PositiveInt = 128
    train_limit: PositiveInt | None = None
    mean: Values | None = None
    std: Values | None = None
    flip: bool = True
    objects: Annotated[int, Field(ge=1, le=1000)] = 100

    @model_validator(mode="after")
    def _normalised(self) -> Self:
        check_pair(self.mean, self.std)
        return self

    def _described(self) -> TaskSpec:
        heads = self._heads()
        mean, std = self.mean, self.std
        if mean is None or std is None:
            mean, std = statistics(self.split("train").inputs, per_channel=False)
        check_channels(self._title(), mean, std, 3)
        return TaskSpec(
            name=self._title(),
            kind=self._kind(),
            input=InputSpec(shape=(3, *self.size), mean=mean, std=std, picture=self._picture),
            head=heads[0],
            more=heads[1:],
            metric=MetricSpec(name=metric_name(heads)),
            data=self._data.data,
            flip=self.flip,
        )

    def score(self, outputs: Rows, labels: Rows) -> Score:
        """Return the head's own metric, or the mean of several."""
        return score_heads(self._heads(), outputs, labels)

    @abstractmethod
    def _heads(self) -> tuple[HeadSpec, ...]:
        """Return the heads of the task."""

    @abstractmethod
    def _annotations(self, part: str) -> Sequence[Annotation]:
        """Return the annotations of ``train`` or ``test``."""

    @abstractmethod
    def _title(self) -> str:
        """Return the task's name."""

    @abstractmethod
    def _kind(self) -> str:
        """Return the task's kind, as in a project file."""

    @property
    def _picture(self) -> PictureSpec:
        """Conversion without rotation: boxes and masks are in the file's own coordinates."""
        return PictureSpec(size=self.size, fit="stretch", orientation="stored")

    def _carve(self) -> CarvedImages:
        return CarvedImages(
            what=self._title(),
            train=self._read("train"),
            test=lambda: self._read("test"),
            validation=None,
            validation_fraction=self.validation,
            calibration_count=self.calibration,
            train_limit=self.train_limit,
        )

    def _read(self, part: str) -> LabelledImages:
        annotations, heads = self._annotations(part), self._heads()
        if not annotations:
            raise ConfigurationError.one(f"{self._title()}: there is no picture for {part}", "check the paths")
        images = np.empty((len(annotations), 3, *self.size), np.uint8)
        sizes = np.empty((len(annotations), 2))
        for at, annotation in enumerate(annotations):
            images[at], sizes[at] = read_picture(annotation.picture, self._picture)
        fields = dict[str, NDArray[Any]]()
        for head in heads:
            if head.kind == "detection":
                fields[head.name] = _boxes(annotations, sizes, self.size)
            else:
                for annotation, before in zip(annotations, sizes, strict=True):
                    _check_shape(annotation, before)
                fields[head.name] = np.stack([_resized(a.mask, self.size) for a in annotations])
                highest = int(fields[head.name][fields[head.name] != IGNORED].max(initial=0))
                if highest >= head.classes:
                    raise ConfigurationError.one(
                        f"{self._title()}: a pixel of {part} is of class {highest}, and there are {head.classes}",
                        f"name every class with `labels`; pixels that don't count are {IGNORED}",
                    )
        return LabelledImages(images, label_rows(heads, fields))


def read_picture(path: Path, spec: PictureSpec) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Return a picture (3, H, W), and height and width of its file. Raises ConfigurationError for a damaged file."""
    image = opened(picture_bytes(path), path)
    size = image.height, image.width
    return framed(image, spec, path), size


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Return a mask (H, W) of class numbers, from a grey or palette picture. Raises ConfigurationError."""
    image = opened(picture_bytes(path), path)
    if image.mode not in ("L", "P"):
        raise ConfigurationError.one(
            f"{path} is a picture of mode {image.mode}, and a mask has one number a pixel",
            "write masks as grey or palette PNG files, a class number in every pixel",
        )
    return np.asarray(image, np.uint8)


def _boxes(annotations: Sequence[Annotation], sizes: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float32]:
    objects = [list(_inside(annotation, before, size)) for annotation, before in zip(annotations, sizes, strict=True)]
    rows = np.zeros((len(annotations), max(1, *map(len, objects)), OBJECT_FIELDS), np.float32)
    rows[:, :, 4] = NOTHING
    for row, found in zip(rows, objects, strict=True):
        row[: len(found)] = np.reshape(found, (-1, OBJECT_FIELDS))
    return rows


def _inside(annotation: Annotation, before: NDArray[np.float64], size: tuple[int, int]) -> Iterator[tuple[float, ...]]:
    """Yield rows of the objects that overlap the picture, at the new size."""
    down, across = np.asarray(size) / before
    for thing in annotation.things:
        box = np.asarray(thing.box, np.float64) * (across, down, across, down)
        if not np.isfinite(box).all():
            raise ConfigurationError.one(f"{annotation.picture}: a box is at {thing.box}", "check its annotation")
        x1, y1, x2, y2 = np.clip(box, 0, (size[1], size[0], size[1], size[0]))
        if x1 < x2 and y1 < y2:
            yield (x1, y1, x2, y2, thing.kind, thing.ignored)


def _check_shape(annotation: Annotation, size: NDArray[np.float64]) -> None:
    """Raise ConfigurationError if a mask's aspect differs; it may be smaller than its picture, and a pixel off."""
    if annotation.mask is None:
        return
    (height, width), (rows, columns) = size, annotation.mask.shape
    if abs(rows * width - columns * height) > max(height, width):
        raise ConfigurationError.one(
            f"{annotation.picture} has {height:.0f} x {width:.0f} pixels, and its mask {rows} x {columns}",
            "check that they belong together, and that neither is turned or cropped",
        )


def _resized(mask: NDArray[np.uint8] | None, size: tuple[int, int]) -> NDArray[np.uint8]:
    if mask is None:
        return np.full(size, IGNORED, np.uint8)
    rows, columns = (
        ((np.arange(after) + 0.5) * before / after).astype(int) for after, before in zip(size, mask.shape, strict=True)
    )
    return mask[np.ix_(rows, columns)]
