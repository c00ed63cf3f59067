"""`python`: a task from a person's own function, ``my_task.py:task``.

The function has no arguments and returns either a mapping of arrays named as in a .npz file (x_train, y_train, x_test,
y_test and, optionally, x_validation, y_validation, class_names; with validation arrays, x_train and y_train may be
missing), or an object that is a Task itself; the other options are for arrays only. Samples of several inputs are a
mapping of arrays in the place of x_train and so on, by the names of the student's ``forward`` parameters.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import PrivateAttr

from edgekd.code_references import CodeReference, running
from edgekd.errors import ConfigurationError, UnknownName
from edgekd.tasks._protocol import (
    HeadSpec,
    InputSpec,
    Rows,
    Score,
    Split,
    SplitName,
    SplitSizes,
    Task,
    TaskSpec,
    sizes_of,
)
from edgekd.tasks.arrays import images_of
from edgekd.tasks.images.classification import ArrayImages, names_of
from edgekd.tasks.labelled import LabelledImages
from edgekd.tasks.named_inputs import NamedInput, packed_inputs
from edgekd.tasks.rows import ABSENT, IGNORED, LABEL_DTYPES, OBJECT_FIELDS
from edgekd.tasks.splits import content_keys

__all__ = ["PythonTask"]

_SPLITS: tuple[SplitName, ...] = get_args(SplitName)


class PythonTask(ArrayImages):
    """Options of `python`: the function, and those shared with other image tasks."""

    module: CodeReference
    _found: Any = PrivateAttr(None)
    _checked: bool = PrivateAttr(False)
    _named: dict[str, tuple[NamedInput, ...]] = PrivateAttr(default_factory=dict)  # several inputs, by split
    _several: dict[str, LabelledImages] = PrivateAttr(default_factory=dict)  # their samples

    @property
    def spec(self) -> TaskSpec:
        """The person's own spec, or one made from the arrays. Raises ConfigurationError if it is wrong."""
        task = self._own()
        return super().spec if task is None else task.spec

    def split(self, name: SplitName) -> Split:
        """Return one split."""
        task = self._own()
        return super().split(name) if task is None else task.split(name)

    @property
    def sizes(self) -> SplitSizes:
        """Number of samples in each split."""
        task = self._own()
        return super().sizes if task is None else sizes_of(task)

    def score(self, outputs: Rows, labels: Rows) -> Score:
        """Score by the person's own metric, or that of arrays (`Images`)."""
        task = self._own()
        return super().score(outputs, labels) if task is None else task.score(outputs, labels)

    def _own(self) -> Task | None:
        """Return the task that the function returned, or None if it returned arrays."""
        found = self._called()
        if isinstance(found, Mapping):
            return None
        if missing := [name for name in ("spec", "split", "score") if not hasattr(found, name)]:
            raise ConfigurationError.one(
                f"`{self.module.target}()` returned {type(found).__name__} without `{missing[0]}`",
                "return arrays {'x_train': ..., 'y_train': ..., 'x_test': ..., 'y_test': ...}, or a Task",
            )
        if not isinstance(found.spec, TaskSpec):
            raise ConfigurationError.one(
                f"`{self.module.target}()`: its spec is {type(found.spec).__name__}", "a TaskSpec is expected"
            )
        own: Task = found
        if not self._checked:
            self._refuse_wrong_splits(own)
            self._refuse_shared_samples(own)
            self._checked = True
        return own

    def _refuse_wrong_splits(self, task: Task) -> None:
        """Raise ConfigurationError if a split contradicts the spec: it would fail in the middle of a training."""
        shape, raw, classes = task.spec.input.shape, task.spec.input.raw_dtype, task.spec.head.classes
        for name in _SPLITS:
            split = task.split(name)
            inputs, labels = split.inputs, split.labels
            none = not len(inputs) and (name != "train" or len(labels))  # `data-free` learns without images
            if inputs.shape[1:] != shape or none or inputs.dtype != raw:
                problem = f"inputs of the {name} split are {inputs.dtype} {inputs.shape}"
                remedy = f"the spec says {raw} (N, {', '.join(map(str, shape))}), and at least one sample is needed"
            elif not task.spec.plain:
                wrong = _wrong_rows(task.spec, labels, len(inputs))
                if not wrong:
                    continue
                problem, remedy = f"labels of the {name} split {wrong}", "lay them out as edgekd.tasks.rows does"
            elif labels.dtype != np.int64:
                problem, remedy = f"labels of the {name} split are {labels.dtype}", "give int64: labels.astype(int)"
            elif labels.shape != (len(inputs),):
                problem, remedy = f"labels of the {name} split are {labels.shape}", f"one an input: ({len(inputs)},)"
            elif len(labels) and (labels.min() < 0 or labels.max() >= classes):
                problem = f"labels of the {name} split go from {labels.min()} to {labels.max()}"
                remedy = f"the spec has {classes} classes: labels from 0 to {classes - 1}"
            else:
                continue
            raise ConfigurationError.one(f"`{self.module.target}()`: {problem}", remedy)

    def _refuse_shared_samples(self, task: Task) -> None:
        """Raise ConfigurationError if a sample is in two splits: the accuracy would partly measure memorisation."""
        keys = {name: content_keys(task.split(name).inputs) for name in _SPLITS}
        for one, other in itertools.combinations(_SPLITS, 2):
            if {one, other} == {"train", "calibration"}:
                continue  # ranges of activations need no held-out samples
            shared = len(np.intersect1d(keys[one], keys[other]))
            if shared:
                raise ConfigurationError.one(
                    f"`{self.module.target}()`: {shared} samples are both in the {one} and in the {other} split",
                    "give every sample to one split, or return arrays and let edgekd split them",
                )

    def _called(self) -> Any:
        if self._found is None:
            function = self.module.resolve()
            with running(self.module, "it is called without arguments"):
                self._found = function()
        return self._found

    def _title(self) -> str:
        return self.module.target.partition(":")[0]

    def _names(self) -> tuple[str, ...]:
        return self.labels or names_of(self._called().get("class_names", ()), f"{self.module.target} class_names")

    def _source(self) -> str:
        return self.module.target

    def _arrays(self) -> Collection[str]:
        return tuple(map(str, self._called()))

    def _part(self, name: str) -> LabelledImages:
        arrays = self._called()
        for key in (f"x_{name}", f"y_{name}"):
            if key not in arrays:
                raise UnknownName("array", key, map(str, arrays), remedy=f"`{self.module.target}()` must return it")
        inputs, labels = arrays[f"x_{name}"], np.asarray(arrays[f"y_{name}"])
        where = f"{self.module.target} {name}"
        several = {isinstance(arrays.get(f"x_{each}", inputs), Mapping) for each in ("train", "validation", "test")}
        if len(several) > 1:
            raise ConfigurationError.one(
                f"`{self.module.target}()`: some splits are mappings of inputs, and others arrays", "give all alike"
            )
        if not isinstance(inputs, Mapping):
            return images_of(np.asarray(inputs), labels, self.layout, where)
        if name not in self._several:
            packed = self._packed(name, inputs, where)
            self._several[name] = LabelledImages(packed, images_of(packed, labels, "nct", where).labels)
        return self._several[name]

    def _packed(self, name: str, inputs: Mapping[str, Any], where: str) -> NDArray[np.float32]:
        """Return packed samples. Raises ConfigurationError if another split has other inputs."""
        first = next(iter(self._named.values()), ())
        if first and {one.name for one in first} != set(inputs):
            raise ConfigurationError.one(
                f"{where}: the inputs are {', '.join(inputs)}, and another split has {', '.join(map(str, first))}",
                "give all splits the same inputs",
            )
        order = [one.name for one in first] or list(inputs)
        named, packed = packed_inputs({key: np.asarray(inputs[key]) for key in order}, where)
        for own, other in zip(named, first, strict=False):
            if (own.shape, own.dtype) != (other.shape, other.dtype):
                raise ConfigurationError.one(f"{where}: `{own}` is `{other}` in another split", "give both alike")
        self._named[name] = named
        return packed

    def _input(self, described: LabelledImages) -> InputSpec:
        if not self._named:
            return super()._input(described)
        given = {"mean": self.mean, "per_channel": self.per_channel, "flip": self.flip, "layout": self.layout != "auto"}
        if asked := [option for option, value in given.items() if value]:
            raise ConfigurationError.one(
                f"`{self.module.target}()` returns several inputs, and `{asked[0]}` is for one",
                "leave it out: a model gets several inputs as they are",
            )
        columns = zip(*(named for name, named in self._named.items() if name != "test"), strict=True)
        highest = [column[0].but(highest=max(one.highest for one in column)) for column in columns]
        return InputSpec.of_named(highest, self._raw_range())


def _wrong_rows(spec: TaskSpec, labels: Rows, count: int) -> str:
    """Return what is wrong with the labels of several heads; empty if nothing is."""
    if labels.shape != (count,) or labels.dtype.names is None:
        return f"are {labels.dtype} {labels.shape}, and a record array ({count},) is needed"
    shapes = {"classification": (), "segmentation": spec.input.shape[1:], "detection": (-1, OBJECT_FIELDS)}
    for head in spec.heads:
        if head.name not in labels.dtype.names:
            return f"have no field `{head.name}`"
        own = labels[head.name]
        if head.kind in ("multilabel", "regression"):
            if wrong := _wrong_vectors(head, own):
                return wrong
            continue
        shape = tuple(
            -1 if wanted == -1 else size for wanted, size in zip(shapes[head.kind], own.shape[1:], strict=False)
        )
        if own.dtype != LABEL_DTYPES[head.kind] or own.ndim - 1 != len(shapes[head.kind]) or shape != shapes[head.kind]:
            return f"of `{head.name}` are {own.dtype} {own.shape}"
        classes = own[:, :, 4] if head.kind == "detection" else own[own != IGNORED] if own.dtype == np.uint8 else own
        if classes.max(initial=0) >= head.classes:
            return f"of `{head.name}` go up to {classes.max():g}, and there are {head.classes} classes"
    return ""


def _wrong_vectors(head: HeadSpec, own: NDArray[Any]) -> str:
    """Return what is wrong with multilabel or regression labels; empty if nothing is."""
    if own.dtype != LABEL_DTYPES[head.kind] or own.shape[1:] != (head.classes,):
        return f"of `{head.name}` are {own.dtype} {own.shape}"
    if head.kind == "multilabel" and (own.min(initial=0) < ABSENT or own.max(initial=0) > 1):
        return f"of `{head.name}` go from {own.min()} to {own.max()}, and 0, 1 and {ABSENT} are expected"
    if head.kind == "regression" and np.isinf(own).any():
        return f"of `{head.name}` hold infinity"
    return ""
