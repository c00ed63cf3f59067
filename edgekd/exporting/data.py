"""Calibration and scoring samples of a model: class folders or a .csv (by their task), arrays, pictures, or none.

Without labels, the float model's own predictions stand for them: the score is then agreement with it. Calibration
samples are never scored; arrays without a split are divided by content, and the scored part both chooses a precision
and gives the reported score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import nn

from edgekd import plugins
from edgekd.distill.predict import predict
from edgekd.errors import ConfigurationError, Place, UsageError
from edgekd.events import Events, SilentEvents, stop_if_asked
from edgekd.exporting.model_inputs import LABELS
from edgekd.records import digest_json
from edgekd.students.own import classes_of
from edgekd.students.unpacking import unpack_inputs
from edgekd.tasks._protocol import (
    HeadSpec,
    InputSpec,
    MetricSpec,
    PictureSpec,
    PreparableTask,
    Rows,
    Score,
    Split,
    SplitName,
    Task,
    TaskSpec,
)
from edgekd.tasks.arrays import Layout, images_of
from edgekd.tasks.class_folders import is_hidden
from edgekd.tasks.images.decoding import PICTURE_SUFFIXES
from edgekd.tasks.images.pictures import read_picture
from edgekd.tasks.inspect_data import holds_texts, look_at
from edgekd.tasks.labelled import statistics
from edgekd.tasks.named_inputs import NamedInput, packed_inputs
from edgekd.tasks.normalisation import require_varied
from edgekd.tasks.npz import array_names, read_array
from edgekd.tasks.score import top1
from edgekd.tasks.splits import carve, content_keys, digest_arrays

__all__ = ["ModelTask", "task_for"]

AGREEMENT = "agreement"
_IMAGES = ("x", "images", "inputs", "x_test", "x_validation", "x_train")
_CALIBRATION, _MADE_UP, _MOST_PICTURES = 256, 16, 2000

_SIGNAL_AXES, _PICTURE_AXES = 2, 3
_MOST_NAMED = 10  # classes
_SILENT = SilentEvents()

Values = tuple[float, ...]


@dataclass(frozen=True)
class ModelTask:
    """Task from the model's view: its classes, with labels or the model's predictions in the splits."""

    spec: TaskSpec
    split_of: Callable[[SplitName], Split]
    where: str  # description of the images
    kind: Literal["top1", "agreement", ""]  # metric of a score; "": the inputs are random, and a score means nothing
    notes: tuple[str, ...] = ()  # remarks on the images

    def split(self, name: SplitName) -> Split:
        """Return one split of the data."""
        return self.split_of(name)

    def score(self, outputs: Rows, labels: Rows) -> Score:
        """Top-1 against labels, or against the float model's predictions."""
        return top1(outputs, labels).but(metric=self.spec.metric.name)


def task_for(
    module: nn.Module,
    called: str,
    shape: tuple[int, ...] | None,
    data: Path | None,
    mean: Values,
    std: Values,
    events: Events = _SILENT,
    named: Sequence[NamedInput] = (),
) -> ModelTask:
    """Task of a model and its images. ``mean`` and ``std`` are in raw units; empty where they are not known.

    ``named`` are several inputs, of the arrays of ``data``; ``shape`` is that of the only one.

    Raises UsageError where neither images nor a shape are known, or a parameter contradicts the images;
    ConfigurationError where they don't fit the model; Interrupted while pictures are decoded.
    """
    if bool(mean) != bool(std):
        raise UsageError("--mean and --std belong together", "give both, in raw units (0 to 255 for pictures)")
    if any(value <= 0 for value in std):
        raise UsageError(f"--std {min(std):g}: a value above 0 is expected", "for example --std 58.4,57.1,57.4")
    if named:
        if mean:
            raise UsageError("--mean and --std are for one input", "give several inputs as the model takes them")
        return _of_several(module, called, named, data)
    if data is None:
        if shape is None:
            raise UsageError("the model's input shape is not known", "give --input 3x224x224, or --data")
        return _made_up(module, called, shape, mean, std)
    if not data.exists():
        raise ConfigurationError.one(
            "no such file or folder", "give an .npz, a .csv, or a folder of pictures or recordings", Place(str(data))
        )
    if data.is_dir() and (loose := _loose_pictures(data)):
        return _loose(module, called, shape, data, loose, mean, std, events)
    if data.is_dir() or data.suffix.lower() == ".csv":
        return _labelled(module, called, shape, data, mean, std, events)
    if data.suffix != ".npz":
        raise UsageError(
            f"--data {data}: an .npz, a folder of pictures or WAV files, or a .csv of pictures or series is expected",
            "save your samples and labels as one of them",
        )
    names = set(array_names(data))
    if {"x_test", "y_test"} <= names and names & {"x_train", "x_validation"} and names & {"y_train", "y_validation"}:
        first = read_array(data, "x_train" if "x_train" in names else "x_validation")
        options = {"data": data.absolute(), "per_channel": True, "layout": _layout(module, called, first, shape)}
        return _of_task(module, called, "image-classification", options, _normal(first, mean, std), events, shape)
    images = next((name for name in _IMAGES if name in names), None)
    if images is None:
        raise ConfigurationError.one(
            f"has the arrays {', '.join(sorted(names)) or 'none'}",
            "name the samples `x` and, where there are labels, those `y`; or x_train, y_train, x_test, y_test",
            Place(str(data)),
        )
    wanted = (images.replace("x_", "y_"),) if images.startswith("x_") else LABELS
    labels = next((name for name in wanted if name in names), None)
    labelled = read_array(data, labels) if labels is not None else None
    inputs = read_array(data, images)
    return _of_arrays(module, called, data, inputs, labelled, _normal(inputs, mean, std), shape)


def _layout(module: nn.Module, called: str, inputs: NDArray[Any], shape: tuple[int, ...] | None) -> Layout:
    """Array layout of a model's input: signals where it takes (N, C, T) and, its input unknown, not (N, 1, H, W).

    A known image shape decides which axis holds the channels, which arrays of 2 or 13 channels don't show.
    """
    if shape is not None and len(shape) == _PICTURE_AXES and inputs.ndim == 1 + _PICTURE_AXES:
        if inputs.shape[1:] == shape:
            return "nchw"
        return "nhwc" if inputs.shape[1:] == (*shape[1:], shape[0]) else "auto"
    if shape is not None or inputs.ndim != 1 + _SIGNAL_AXES:
        return "nct" if shape is not None and len(shape) == _SIGNAL_AXES else "auto"
    signal = inputs.shape[1:]
    return "nct" if _takes(module, called, signal) and not _takes(module, called, (1, *signal)) else "auto"


def _takes(module: nn.Module, called: str, shape: tuple[int, ...]) -> bool:
    """Tell whether a model gives logits for inputs of a shape."""
    try:
        return classes_of(module, InputSpec(shape=shape), called) > 0
    except ConfigurationError:  # reported where no other shape is possible
        return False


def _name(shape: tuple[int, ...]) -> str:
    """Name of a file's input."""
    return "signal" if len(shape) == _SIGNAL_AXES else InputSpec.model_fields["name"].default


def _normal(images: NDArray[Any], mean: Values, std: Values) -> Mapping[str, Values]:
    """Mean and std where they are known: float images are assumed normalised."""
    if mean:
        return {"mean": mean, "std": std}
    return {} if images.dtype == np.uint8 else {"mean": (0.0,), "std": (1.0,)}


def _of_task(
    module: nn.Module,
    called: str,
    kind: str,
    options: Mapping[str, Any],
    normal: Mapping[str, Values],
    events: Events,
    shape: tuple[int, ...] | None = None,
) -> ModelTask:
    """Task of a kind, with the model's classes in place of those in its labels."""
    plugin = plugins.load("edgekd.tasks", kind)
    try:
        task: Task = plugin.model_validate({**options, **normal})
    except ValidationError as error:
        raise ConfigurationError.one(f"--data: {error.errors(include_url=False)[0]['msg']}") from error
    if isinstance(task, PreparableTask):
        events.line(f"{task.what:<10} {task.prepare(partial(events.progress, task.what), events.stop)}")
    spec = task.spec
    _require_shape(spec.name, spec.input.shape, shape)
    _require_channels(spec.input.mean, spec.input.std, spec.input.shape)
    if not spec.plain:
        raise ConfigurationError.one(
            f"the labels of {spec.name} are no classes, one a sample", "export of such models comes later"
        )
    classes = classes_of(module, spec.input, called)
    if spec.head.classes > classes:
        raise ConfigurationError.one(
            f"`{called}` tells {classes} classes, and the labels of {spec.name} go up to {spec.head.classes - 1}",
            f"give {spec.input.what} of the classes that the model was trained for",
        )
    whole = spec.head.classes == classes
    labels = spec.head.labels if whole else ()
    notes = [] if whole else [_of_fewer(spec, called, classes)]
    if (sound := spec.input.sound) is not None:
        length = f"{sound.samples} samples, {sound.samples / sound.rate:g} s at {sound.rate} a second"
        notes.append(f"recordings are cropped or padded to {length}")
    spec = spec.but(head=HeadSpec(classes=classes, labels=labels))
    return ModelTask(spec, task.split, spec.name, "top1", tuple(notes))


def _of_fewer(spec: TaskSpec, called: str, classes: int) -> str:
    """Caution for samples with fewer classes than the model: classes are matched by order alone."""
    head = spec.head
    named = ", ".join(f"{number} is {name}" for number, name in enumerate(head.labels[:_MOST_NAMED]))
    more = ", ..." if len(head.labels) > _MOST_NAMED else ""
    return (
        f"the {spec.input.what} have {head.classes} classes and `{called}` has {classes}: of its answers "
        f"{named + more if named else f'the first {head.classes} are taken for theirs'}"
    )


def _require_channels(mean: Values, std: Values, shape: tuple[int, ...]) -> None:
    """Check for one value, or one per channel of (C, H, W) or (C, T). Raises UsageError."""
    for option, values in (("--mean", mean), ("--std", std)):
        if values and len(values) not in (1, shape[0]):
            raise UsageError(
                f"{option} has {len(values)} values, and samples of {shape[0]} channels", "give one, or one a channel"
            )


def _require_shape(source: str, found: tuple[int, ...], asked: tuple[int, ...] | None) -> None:
    """Check that arrays have the shape of --input or of the model's file. Raises UsageError."""
    if asked is not None and tuple(found) != tuple(asked):
        sizes = ["x".join(map(str, shape)) for shape in (found, asked)]
        raise UsageError(
            f"the samples of {source} are {sizes[0]}, and --input or the model's file says {sizes[1]}",
            "leave --input out, or give samples of that size",
        )


def _of_arrays(
    module: nn.Module,
    called: str,
    source: Path,
    inputs: NDArray[Any],
    labelled: NDArray[Any] | None,
    normal: Mapping[str, Values],
    shape: tuple[int, ...] | None = None,
    picture: PictureSpec | None = None,
    notes: tuple[str, ...] = (),
) -> ModelTask:
    """Task of unsplit arrays: a part calibrates, the rest scores."""
    blank = np.zeros(len(inputs), np.int64)
    layout = _layout(module, called, inputs, shape) if picture is None else "auto"
    given = images_of(inputs, blank if labelled is None else labelled, layout, source.name)
    if given.labels.dtype.names is not None:
        raise ConfigurationError.one(f"the labels of {source.name} are no classes, one a sample", "give (N,) integers")
    images = np.ascontiguousarray(given.inputs)
    _require_shape(source.name, images.shape[1:], shape)
    mean, std = (normal["mean"], normal["std"]) if normal else statistics(images, per_channel=True)
    _require_channels(mean, std, images.shape[1:])
    require_varied(source.name, std)
    taken = InputSpec(
        name=_name(images.shape[1:]),
        shape=images.shape[1:],
        raw_dtype="uint8" if images.dtype == np.uint8 else "float32",
        raw_range=(0.0, 255.0) if images.dtype == np.uint8 else (float(images.min()), float(images.max())),
        mean=mean,
        std=std,
        picture=picture,
    )
    return _unsplit(module, called, source, taken, images, None if labelled is None else given.labels, notes)


def _of_several(module: nn.Module, called: str, named: Sequence[NamedInput], data: Path | None) -> ModelTask:
    """Task of a model of several inputs: arrays by their names, or random inputs without ``data``."""
    if data is None:
        taken = InputSpec.of_named(named)
        return _random(unpack_inputs(module, taken), called, taken, taken.random(0, _MADE_UP))
    names = array_names(data)
    labels = next((read_array(data, name) for name in LABELS if name in names), None)
    _, packed = packed_inputs({one.name: read_array(data, one.name) for one in named}, data.name)
    # checks samples and labels as those of signals
    checked = images_of(packed, np.zeros(len(packed), np.int64) if labels is None else labels, "nct", data.name)
    if checked.labels.dtype.names is not None:
        raise ConfigurationError.one(f"the labels of {data.name} are no classes, one a sample", "give (N,) integers")
    taken = InputSpec.of_named(named, (float(packed.min()), float(packed.max())))
    return _unsplit(
        unpack_inputs(module, taken), called, data, taken, packed, None if labels is None else checked.labels
    )


def _unsplit(
    module: nn.Module,
    called: str,
    source: Path,
    taken: InputSpec,
    images: NDArray[Any],
    labelled: NDArray[np.int64] | None,
    notes: tuple[str, ...] = (),
) -> ModelTask:
    """Task of samples in one part, and their labels where they have some."""
    classes = classes_of(module, taken, called)
    kind: Literal["top1", "agreement"] = "agreement" if labelled is None else "top1"
    identity = np.zeros(len(images), np.int64) if labelled is None else labelled
    spec = TaskSpec(
        name=source.stem,
        input=taken,
        head=HeadSpec(classes=classes),
        metric=MetricSpec(name=kind),
        data=digest_arrays(images, identity),
    )
    labels = predict(module, images, spec).argmax(1).astype(np.int64) if labelled is None else labelled
    if int(labels.max()) >= classes:
        raise ConfigurationError.one(
            f"`{called}` tells {classes} classes, and a label of {source.name} is {labels.max()}",
            f"give {spec.input.what} of the classes that the model was trained for",
        )
    if len(images) < 2:
        raise ConfigurationError.one(
            f"{source.name} has {len(images)} sample", "give two at least, better a few hundred"
        )
    first, rest = carve(content_keys(images), labels, [min(_CALIBRATION, len(images) // 2)])
    where = f"{source.name}: {len(first)} {spec.input.what} calibrate, {len(rest)} score"
    parts = {"calibration": first, "validation": rest, "test": rest}
    return ModelTask(spec, _splits(images, labels, parts), where, kind, notes)


def _labelled(
    module: nn.Module,
    called: str,
    shape: tuple[int, ...] | None,
    data: Path,
    mean: Values,
    std: Values,
    events: Events,
) -> ModelTask:
    """Task of class folders or of a .csv, recognised as `edgekd init --data` does: pictures, recordings or series.

    Samples get the model's size where it is known. Raises ConfigurationError for texts.
    """
    if holds_texts(data):
        raise ConfigurationError.one(
            f"{data} holds texts, and a text becomes ids by the tokenizer that the model was trained with",
            "write a project of the family own with task: {kind: text-classification, ..., tokenizer: tokenizer.json}",
        )
    steps = shape[-1] if shape is not None and len(shape) == _SIGNAL_AXES else None
    seen = look_at(data.absolute(), Path(), steps)
    options = {name: value for name, value in seen.task.items() if name not in ("kind", "size")}
    if not seen.signal:
        options |= {"per_channel": True} | ({} if shape is None else {"size": shape[1:], "channels": shape[0]})
        return _of_task(module, called, seen.task["kind"], options, _pixels(mean, std), events)
    if shape is not None and steps is not None and seen.rate:
        options |= {"seconds": steps / seen.rate, "channels": 2 if shape[0] == 2 else 1}
    normal = _pixels(mean, std) or {"mean": (0.0,), "std": (1.0,)}
    return _of_task(module, called, seen.task["kind"], options, normal, events, shape)


def _loose_pictures(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and not is_hidden(p.name))


def _loose(
    module: nn.Module,
    called: str,
    shape: tuple[int, ...] | None,
    folder: Path,
    loose: Sequence[Path],
    mean: Values,
    std: Values,
    events: Events,
) -> ModelTask:
    """Task of pictures without classes."""
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))
    if folders:
        raise ConfigurationError.one(
            f"{folder} has pictures (`{loose[0].name}`) beside folders (`{folders[0]}`): are the folders classes or "
            "not?",
            "give a folder of class folders alone, or one of pictures alone",
        )
    if shape is None:
        raise UsageError("pictures are brought to the model's size, which is not known", "give --input 3x224x224")
    if len(shape) != _PICTURE_AXES:
        raise UsageError(f"{folder} holds pictures, and a model's input {shape} is none", "give --input 3x224x224")
    spec = PictureSpec(size=(shape[1], shape[2]), fit="crop", mode="L" if shape[0] == 1 else "RGB")
    taken, pictures = loose[:_MOST_PICTURES], list[NDArray[np.uint8]]()
    for done, path in enumerate(taken):
        stop_if_asked(events, "stopped while pictures were decoded", "give the same command again")
        events.progress("pictures", done, len(taken), path.name)
        pictures.append(read_picture(path, spec)[0])
    events.progress("pictures", len(taken), len(taken), "")
    notes = () if len(loose) == len(taken) else (f"the first {len(taken)} of {len(loose)} pictures were taken",)
    return _of_arrays(module, called, folder, np.stack(pictures), None, _pixels(mean, std), shape, spec, notes)


def _pixels(mean: Values, std: Values) -> Mapping[str, Values]:
    return {"mean": mean, "std": std} if mean else {}


def _made_up(module: nn.Module, called: str, shape: tuple[int, ...], mean: Values, std: Values) -> ModelTask:
    """Task of random inputs for the parity check: pixels, where their normalisation is known.

    They calibrate nothing, and no score is reported.
    """
    _require_channels(mean, std, shape)
    random = np.random.default_rng(0)
    images: NDArray[Any] = random.standard_normal((_MADE_UP, *shape)).astype(np.float32)
    if mean:
        images = random.integers(0, 256, (_MADE_UP, *shape), np.uint8)
    taken = InputSpec(
        name=_name(shape),
        shape=shape,
        raw_dtype="uint8" if mean else "float32",
        raw_range=(0.0, 255.0) if mean else (float(images.min()), float(images.max())),
        mean=mean or (0.0,),
        std=std or (1.0,),
    )
    return _random(module, called, taken, images)


def _random(module: nn.Module, called: str, taken: InputSpec, images: NDArray[Any]) -> ModelTask:
    spec = TaskSpec(
        name=called.rpartition(":")[2],
        input=taken,
        head=HeadSpec(classes=classes_of(module, taken, called)),
        metric=MetricSpec(name=AGREEMENT),
        data=digest_json(["made up", list(taken.shape)]),
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
