"""The images that a model is calibrated and scored on: a task of its own kind, arrays, a folder, or none.

Where there are no labels, the float model's own answers stand for them: what is scored then is agreement with it. The
images that calibrate are never among those that score; arrays without a split are parted by content, and the part that
scores both chooses a precision and is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import nn

from edgekd import plugins
from edgekd.distill.predict import predict
from edgekd.errors import ConfigurationError, Place, UsageError
from edgekd.records import digest_json
from edgekd.students.own import classes_of
from edgekd.tasks._protocol import (
    HeadSpec,
    InputSpec,
    MetricSpec,
    PictureSpec,
    Rows,
    Score,
    Split,
    SplitName,
    Task,
    TaskSpec,
)
from edgekd.tasks.arrays import images_of
from edgekd.tasks.decoding import PICTURE_SUFFIXES
from edgekd.tasks.labelled import statistics
from edgekd.tasks.npz import array_names, read_array
from edgekd.tasks.pictures import read_picture
from edgekd.tasks.score import top1
from edgekd.tasks.splits import carve, content_keys, digest_arrays

__all__ = ["ModelTask", "task_for"]

AGREEMENT = "agreement"
_IMAGES, _LABELS = ("x", "images", "inputs", "x_test", "x_validation", "x_train"), ("y", "labels")
_CALIBRATION, _MADE_UP, _MOST_PICTURES = 256, 16, 2000

Values = tuple[float, ...]


@dataclass(frozen=True)
class ModelTask:
    """A task as a model sees it: it tells the model's classes, and labels or answers stand in its splits."""

    spec: TaskSpec
    split_of: Callable[[SplitName], Split]
    where: str  # what the images are, in words
    kind: Literal["top1", "agreement", ""]  # what a score is; "": the images are made up, and a score says nothing

    def split(self, name: SplitName) -> Split:
        """One part of the data."""
        return self.split_of(name)

    def score(self, outputs: Rows, labels: Rows) -> Score:
        """Top-1 against labels, or against what the float model answered."""
        return top1(outputs, labels).but(metric=self.spec.metric.name)


def task_for(
    module: nn.Module, called: str, shape: tuple[int, ...] | None, data: Path | None, mean: Values, std: Values
) -> ModelTask:
    """The task of a model and its images. ``mean`` and ``std`` are in raw units; empty where nobody gave them.

    Raises UsageError where neither images nor a shape are known, ConfigurationError where they don't fit the model.
    """
    if bool(mean) != bool(std):
        raise UsageError("--mean and --std belong together", "give both, in raw units (0 to 255 for pictures)")
    if data is None:
        if shape is None:
            raise UsageError("the model's input shape is not known", "give --input 3x224x224, or --data")
        return _made_up(module, called, shape)
    if data.is_dir():
        return _folder(module, called, shape, data, mean, std)
    if not data.is_file():
        raise ConfigurationError.one(
            "no such file or folder", "give an .npz, or a folder of pictures", Place(str(data))
        )
    if data.suffix == ".csv":
        return _of_task(module, called, "image-csv", {"file": data.absolute(), **_framed(shape)}, _pixels(mean, std))
    if data.suffix != ".npz":
        raise UsageError(
            f"--data {data}: an .npz, a folder of pictures or a .csv of them is expected",
            "save your images and labels as one of them",
        )
    names = set(array_names(data))
    if {"x_test", "y_test"} <= names and names & {"x_train", "x_validation"} and names & {"y_train", "y_validation"}:
        first = read_array(data, "x_train" if "x_train" in names else "x_validation")
        options = {"data": data.absolute(), "per_channel": True}
        return _of_task(module, called, "image-classification", options, _normal(first, mean, std))
    images = next((name for name in _IMAGES if name in names), None)
    if images is None:
        raise ConfigurationError.one(
            f"has the arrays {', '.join(sorted(names)) or 'none'}",
            "name the images `x` and, where there are labels, those `y`; or x_train, y_train, x_test, y_test",
            Place(str(data)),
        )
    wanted = (images.replace("x_", "y_"),) if images.startswith("x_") else _LABELS
    labels = next((name for name in wanted if name in names), None)
    told = read_array(data, labels) if labels is not None else None
    return _of_arrays(
        module, called, data, read_array(data, images), told, _normal(read_array(data, images), mean, std)
    )


def _normal(images: NDArray[Any], mean: Values, std: Values) -> Mapping[str, Values]:
    """Mean and std where they are known: float images are taken as normalised already."""
    if mean:
        return {"mean": mean, "std": std}
    return {} if images.dtype == np.uint8 else {"mean": (0.0,), "std": (1.0,)}


def _of_task(
    module: nn.Module, called: str, kind: str, options: Mapping[str, Any], normal: Mapping[str, Values]
) -> ModelTask:
    """A task by its kind, with the model's classes in place of those that its labels show."""
    plugin = plugins.load("edgekd.tasks", kind)
    try:
        task: Task = plugin.model_validate({**options, **normal})
    except ValidationError as error:
        raise ConfigurationError.one(f"--data: {error.errors(include_url=False)[0]['msg']}") from error
    spec = task.spec
    if not spec.plain:
        raise ConfigurationError.one(
            f"the labels of {spec.name} are no classes, one an image", "export of such models comes later"
        )
    classes = classes_of(module, spec.input.shape, called)
    if spec.head.classes > classes:
        raise ConfigurationError.one(
            f"`{called}` tells {classes} classes, and the labels of {spec.name} go up to {spec.head.classes - 1}",
            "give images of the classes that the model was trained for",
        )
    labels = spec.head.labels if spec.head.classes == classes else ()
    spec = spec.but(head=HeadSpec(classes=classes, labels=labels))
    return ModelTask(spec, task.split, spec.name, "top1")


def _of_arrays(
    module: nn.Module,
    called: str,
    source: Path,
    inputs: NDArray[Any],
    told: NDArray[Any] | None,
    normal: Mapping[str, Values],
    picture: PictureSpec | None = None,
) -> ModelTask:
    """Images that nobody split: a part calibrates, the rest scores."""
    blank = np.zeros(len(inputs), np.int64)
    given = images_of(inputs, blank if told is None else told, "auto", source.name)
    if given.labels.dtype.names is not None:
        raise ConfigurationError.one(f"the labels of {source.name} are no classes, one an image", "give (N,) integers")
    images = np.ascontiguousarray(given.inputs)
    mean, std = (normal["mean"], normal["std"]) if normal else statistics(images, per_channel=True)
    classes = classes_of(module, images.shape[1:], called)
    kind: Literal["top1", "agreement"] = "agreement" if told is None else "top1"
    spec = TaskSpec(
        name=source.stem,
        input=InputSpec(
            shape=images.shape[1:],
            raw_dtype="uint8" if images.dtype == np.uint8 else "float32",
            raw_range=(0.0, 255.0) if images.dtype == np.uint8 else (float(images.min()), float(images.max())),
            mean=mean,
            std=std,
            picture=picture,
        ),
        head=HeadSpec(classes=classes),
        metric=MetricSpec(name=kind),
        data=digest_arrays(images, given.labels),
    )
    labels = predict(module, images, spec).argmax(1).astype(np.int64) if told is None else given.labels
    if int(labels.max()) >= classes:
        raise ConfigurationError.one(
            f"`{called}` tells {classes} classes, and a label of {source.name} is {labels.max()}",
            "give images of the classes that the model was trained for",
        )
    if len(images) < 2:
        raise ConfigurationError.one(
            f"{source.name} has {len(images)} image", "give two at least, better a few hundred"
        )
    first, rest = carve(content_keys(images), labels, [min(_CALIBRATION, len(images) // 2)])
    where = f"{source.name}: {len(first)} images calibrate, {len(rest)} score"
    return ModelTask(
        spec, _splits(images, labels, {"calibration": first, "validation": rest, "test": rest}), where, kind
    )


def _folder(
    module: nn.Module, called: str, shape: tuple[int, ...] | None, folder: Path, mean: Values, std: Values
) -> ModelTask:
    """Pictures in a folder a class, by the task for those; loose pictures have no labels."""
    loose = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    if not loose:
        options = {"root": folder.absolute(), **_framed(shape)}
        return _of_task(module, called, "image-folder", options, _pixels(mean, std))
    if shape is None:
        raise UsageError("pictures are brought to the model's size, which is not known", "give --input 3x224x224")
    spec = PictureSpec(size=(shape[1], shape[2]), fit="crop", mode="L" if shape[0] == 1 else "RGB")
    pictures = np.stack([read_picture(path, spec)[0] for path in loose[:_MOST_PICTURES]])
    return _of_arrays(module, called, folder, pictures, None, _pixels(mean, std), spec)


def _framed(shape: tuple[int, ...] | None) -> Mapping[str, Any]:
    """Options of a task of pictures: the model's size, where it is known; else that of all pictures."""
    return {"per_channel": True} | ({} if shape is None else {"size": shape[1:], "channels": shape[0]})


def _pixels(mean: Values, std: Values) -> Mapping[str, Values]:
    return {"mean": mean, "std": std} if mean else {}


def _made_up(module: nn.Module, called: str, shape: tuple[int, ...]) -> ModelTask:
    """Random values, to compare a file with its model on. They calibrate nothing, and no score is told of them."""
    classes = classes_of(module, shape, called)
    images = np.random.default_rng(0).standard_normal((_MADE_UP, *shape)).astype(np.float32)
    spec = TaskSpec(
        name=called.rpartition(":")[2],
        input=InputSpec(
            shape=shape,
            raw_dtype="float32",
            raw_range=(float(images.min()), float(images.max())),
            mean=(0.0,),
            std=(1.0,),
        ),
        head=HeadSpec(classes=classes),
        metric=MetricSpec(name=AGREEMENT),
        data=digest_json(["made up", list(shape)]),
    )
    labels = predict(module, images, spec).argmax(1).astype(np.int64)
    everything, nothing = np.arange(_MADE_UP), np.arange(0)
    parts = {"calibration": nothing, "validation": everything, "test": everything}
    return ModelTask(spec, _splits(images, labels, parts), "", "")


def _splits(
    images: NDArray[Any], labels: NDArray[np.int64], parts: Mapping[str, NDArray[np.int64]]
) -> Callable[[SplitName], Split]:
    def split(name: SplitName) -> Split:
        chosen: Sequence[int] | NDArray[np.int64] = parts.get(name, np.arange(0))
        inputs, mine = images[chosen], labels[chosen]
        return Split(name, inputs, mine, digest_arrays(inputs, mine))

    return split
