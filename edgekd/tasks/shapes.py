"""`shapes`: generated pictures of circles, squares and triangles, each with a class, boxes and a mask. No files.

Three heads: ``scene`` (the kind of shape with the most pixels), ``things`` (each shape's box and kind) and ``mask``
(background 0, then the kinds). One to four shapes of any colour lie on a textured, noisy background and may overlap;
boxes and masks cover the visible part, and a shape with less than 40 % visible is left out of the picture. Everything
follows from the seed. ``heads`` selects the heads of the task, so that one student for all can be compared with one for
each on the same pictures.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from edgekd.tasks._protocol import HeadSpec, InputSpec, MetricSpec, Rows, Score, TaskSpec
from edgekd.tasks.carved import CarvedTask
from edgekd.tasks.labelled import CarvedImages, LabelledImages, statistics
from edgekd.tasks.metrics.heads import metric_name, score_heads
from edgekd.tasks.rows import ABSENT, IGNORED, NOTHING, OBJECT_FIELDS, UNKNOWN, label_rows

__all__ = ["KINDS", "Shapes", "draw"]

KINDS = ("circle", "square", "triangle")
_MOST = 4
_ANSWERS = 8  # boxes a student may give: twice as many as there are at the most
_SEEN = 0.4

HeadName = Literal["scene", "things", "mask"]


class Shapes(CarvedTask):
    """Options of `shapes`. One input (3, side, side) uint8.

    ``labelled`` is the share of training pictures with each head's label, drawn independently: with less than 1, other
    heads or teachers have to make up for it.
    """

    train: PositiveInt = 4000
    test: PositiveInt = 500
    validation: PositiveInt = 300
    calibration: PositiveInt = 128
    side: Annotated[int, Field(ge=32, multiple_of=16)] = 64
    heads: Annotated[tuple[HeadName, ...], Field(min_length=1)] = ("scene", "things", "mask")
    labelled: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _teachable(self) -> Self:
        if self.heads == ("scene",) and self.labelled < 1.0:
            raise ValueError("labelled: the scene alone needs its label in every picture; ask for another head too")
        return self

    def _described(self) -> TaskSpec:
        mean, std = statistics(self.split("train").inputs, per_channel=False)
        heads = self._heads()
        return TaskSpec(
            name="shapes",
            kind="shapes",
            input=InputSpec(shape=(3, self.side, self.side), mean=mean, std=std),
            head=heads[0],
            more=heads[1:],
            metric=MetricSpec(name=metric_name(heads)),
            data=self._data.data,
            flip=True,
        )

    def score(self, outputs: Rows, labels: Rows) -> Score:
        """Return the mean of the heads' own metrics: top-1, mAP, mIoU."""
        return score_heads(self._heads(), outputs, labels)

    def _heads(self) -> tuple[HeadSpec, ...]:
        known = {
            "scene": HeadSpec(name="scene", classes=len(KINDS), labels=KINDS),
            "things": HeadSpec(name="things", kind="detection", classes=len(KINDS), labels=KINDS, objects=_ANSWERS),
            "mask": HeadSpec(name="mask", kind="segmentation", classes=1 + len(KINDS), labels=("ground", *KINDS)),
        }
        return tuple(known[name] for name in self.heads)

    def _carve(self) -> CarvedImages:
        train = self._drawn(self.train + self.validation, 0)
        return CarvedImages(
            what="shapes",
            train=LabelledImages(train.inputs, self._thinned(train.labels)),
            test=lambda: self._drawn(self.test, 1),
            validation=self._drawn(self.validation, 2),
            validation_fraction=0.0,
            calibration_count=self.calibration,
            train_limit=self.train,
        )

    def _drawn(self, count: int, stream: int) -> LabelledImages:
        images, fields = draw(count, self.side, (self.seed, stream))
        return LabelledImages(images, label_rows(self._heads(), fields))

    def _thinned(self, labels: Rows) -> Rows:
        """Remove labels at random."""
        if self.labelled == 1.0:
            return labels
        rng = np.random.default_rng((self.seed, 3))
        absent = {"scene": ABSENT, "things": UNKNOWN, "mask": IGNORED}
        thinned = labels.copy()
        for name in self.heads:
            gone = rng.random(len(labels)) >= self.labelled
            field = thinned[name]
            if name == "things":
                field[gone, :, 4] = absent[name]
            else:
                field[gone] = absent[name]
        return thinned


def draw(count: int, side: int, seed: tuple[int, ...]) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.generic]]]:
    """Draw pictures (N, 3, side, side), and the labels of all three heads by name, in the layout of `rows`."""
    rng = np.random.default_rng(seed)
    images = np.empty((count, 3, side, side), np.uint8)
    masks = np.zeros((count, side, side), np.uint8)
    things = np.zeros((count, _MOST, OBJECT_FIELDS), np.float32)
    things[:, :, 4] = NOTHING
    scenes = np.empty(count, np.int64)
    for at in range(count):
        owner, kinds = _arranged(rng, side)
        images[at] = _painted(rng, owner, len(kinds))
        of_pixel = np.asarray([0, *(kind + 1 for kind in kinds)], np.uint8)
        masks[at] = of_pixel[owner]
        for place, kind in enumerate(kinds):
            rows, columns = np.nonzero(owner == place + 1)
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            things[at, place] = (*box, kind, 0)
        scenes[at] = int(np.bincount(masks[at].ravel(), minlength=1 + len(KINDS))[1:].argmax())
    return images, {"scene": scenes, "things": things, "mask": masks}


def _arranged(rng: np.random.Generator, side: int) -> tuple[NDArray[np.int64], list[int]]:
    """Return the shape at each pixel (0: none), and the kinds of shapes, the farthest first."""
    rows, columns = np.mgrid[0:side, 0:side] + 0.5
    wanted = int(rng.integers(1, _MOST + 1))
    owner, kinds = np.zeros((side, side), np.int64), list[int]()
    whole = list[int]()
    for _ in range(4 * wanted):
        if len(kinds) == wanted:
            break
        kind = int(rng.integers(len(KINDS)))
        radius = rng.uniform(0.09, 0.25) * side
        x, y = rng.uniform(radius * 0.8, side - radius * 0.8, 2)
        inside = _inside(kind, columns - x, rows - y, radius)
        tried = np.where(inside, len(kinds) + 1, owner)
        areas = [*whole, int(inside.sum())]
        seen = np.bincount(tried.ravel(), minlength=len(areas) + 1)[1:]
        if all(part >= _SEEN * area for part, area in zip(seen, areas, strict=True)):
            owner, whole = tried, areas
            kinds.append(kind)
    return owner, kinds


def _inside(kind: int, x: NDArray[np.float64], y: NDArray[np.float64], radius: float) -> NDArray[np.bool_]:
    if KINDS[kind] == "circle":
        return np.asarray(x**2 + y**2 <= radius**2)
    if KINDS[kind] == "square":
        return np.asarray(np.maximum(np.abs(x), np.abs(y)) <= 0.86 * radius)
    return np.asarray((y <= 0.7 * radius) & (y >= -radius + 1.7 * np.abs(x)))


def _painted(rng: np.random.Generator, owner: NDArray[np.int64], shapes: int) -> NDArray[np.uint8]:
    """Paint shapes on a wavy background, with noise over all of it."""
    side = len(owner)
    rows, columns = np.mgrid[0:side, 0:side] / side
    ground = rng.uniform(60, 196, 3)
    picture = np.empty((3, side, side))
    for channel in range(3):
        across, down, phase = rng.uniform(-18, 18, 3)
        picture[channel] = ground[channel] + 22 * np.sin(across * columns + down * rows + phase)
    for place in range(shapes):
        colour = ground
        while np.abs(colour - ground).max() < 60:  # else it would be invisible
            colour = rng.uniform(0, 255, 3)
        picture[:, owner == place + 1] = colour[:, None]
    picture += rng.normal(0, 12, picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)
