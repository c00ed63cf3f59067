"""Chain of augmentations, and the reader of a stage's ``augment`` options.

``augment: {rotate: 15, colour: {hue: 0.1}, mixup: 0.2}``: each name is an entry point of ``edgekd.augmentations``
followed by its options. A bare number, list or text sets the augmentation's main field; ``true`` means defaults;
``false`` and 0 switch it off. Augmentations apply in the order written, those that mix samples last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializeAsAny, ValidationError, ValidationInfo, model_serializer, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, PydanticKnownError

from edgekd import plugins
from edgekd.distill.augment._protocol import Augmentation, PixelAugmentation
from edgekd.distill.augment.crop import PadCrop
from edgekd.distill.augment.flip import Flip
from edgekd.distill.augment.mixing import Mixed, MixingAugmentation
from edgekd.errors import EdgeKDError, Problem
from edgekd.records import Record
from edgekd.tasks._protocol import TaskSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Augment", "Chain"]

_AUTOMATIC = ("crop", "flip")


class Chain(PixelAugmentation):
    """Augmentations applied in order under one seed; each draws from its own random stream."""

    views: Annotated[tuple[SerializeAsAny[PixelAugmentation], ...], Field(min_length=1)]

    def identity(self) -> dict[str, Any]:
        """Return the identities of the parts, in order."""
        # crop and flip go by their options alone: answers stored by edgekd 0.1 are found by that
        parts = [
            view.model_dump(mode="json") if type(view) in (Flip, PadCrop) else view.identity() for view in self.views
        ]
        return {**super().identity(), "options": {"views": parts}}

    def pixels(self, batch: Tensor, indices: NDArray[np.int64], seed: int) -> Tensor:
        """Return the batch after all augmentations, in order."""
        for view in self.views:
            batch = view.pixels(batch, indices, seed)
        return batch


class Augment(Record):
    """Augmentation options of a recipe: ``augment: {crop: 4, flip: true}``.

    Images are cropped and flipped by default, before all else. Without ``crop``, the border is an eighth of the smaller
    side (0 if `resized_crop` is given, or if the task has regression labels that change when pixels move). Without
    ``flip``, the task's own flip decides.
    """

    parts: tuple[tuple[str, SerializeAsAny[Augmentation] | None], ...] = ()  # as written; None: switched off

    def check(self, spec: TaskSpec) -> list[Problem]:
        """Return the reasons why this task's samples can't be augmented so."""
        if spec.input.text is not None or spec.input.named:
            what = "several inputs" if spec.input.named else "ids of tokens"
            message = f"changes values, and the samples of task `{spec.name}` are {what}"
            asked = [name for name, view in self.parts if view is not None]
            return [Problem(f"augment.{name}: {message}", "leave it out") for name in asked]
        return [
            Problem(f"augment.{name}: {problem.message}", problem.remedy)
            for name, view in self.parts
            if view is not None
            for problem in [*view.check(spec), *_not_followed(view, spec)]
        ]

    def view(self, spec: TaskSpec) -> PixelAugmentation | Mixed | None:
        """Return the augmentation of this task's samples; None if there is none."""
        written = [view.bound(spec) for _, view in self.parts if view is not None]
        views = self._unasked(spec) + [view for view in written if isinstance(view, PixelAugmentation)]
        for at in range(1, len(views)):
            if isinstance(views[at - 1], PadCrop) and isinstance(views[at], Flip):
                # either order shows the same images as often: one order, so that one pass of the teacher does
                views[at - 1 : at + 1] = views[at], views[at - 1]
        seen = Chain(views=tuple(views)) if len(views) > 1 else views[0] if views else None
        mixing = tuple(view for view in written if isinstance(view, MixingAugmentation))
        return Mixed(earlier=seen, ways=mixing) if mixing else seen

    def _unasked(self, spec: TaskSpec) -> list[PixelAugmentation]:
        names = {name for name, _ in self.parts}
        if not spec.input.is_image:
            return []
        border = 0 if names & {"crop", "resized_crop"} or _staying(spec) else min(spec.input.shape[1:]) // 8
        flip: list[PixelAugmentation] = [Flip()] if spec.flip and "flip" not in names else []
        return flip + ([PadCrop(pad=border)] if border else [])

    @model_validator(mode="before")
    @classmethod
    def _from_mapping(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, Mapping) and set(value) == {"parts"}:
            return value
        return {"parts": _read(list(_written(value)), info.context)}

    @model_serializer
    def _to_json(self) -> Any:
        """Serialize as ``{crop, flip}`` if there is nothing else; else as a list, for JSON keys have no order."""
        if all(name in _AUTOMATIC for name, _ in self.parts):
            return {name: _short(name, dict(self.parts)) for name in _AUTOMATIC}
        return [{name: False if view is None else view.model_dump(mode="json")} for name, view in self.parts]


def _staying(spec: TaskSpec) -> list[str]:
    """Return the names of regression heads whose labels would change when pixels move."""
    return [head.name for head in spec.heads if head.kind == "regression" and not head.invariant]


def _not_followed(view: Augmentation, spec: TaskSpec) -> list[Problem]:
    if not view.moves or isinstance(view, Flip | MixingAugmentation) or not (names := _staying(spec)):
        return []  # the task's `flip` allows a flip, and mixing has its own rules
    message = f"moves pixels, and the numbers of `{names[0]}` in task `{spec.name}` don't follow"
    return [Problem(message, "leave it out, or say `invariant: true` in the task if they stay as they are")]


class _Written(NamedTuple):
    place: tuple[str | int, ...]
    name: str
    options: Any


def _written(value: Any) -> Iterator[_Written]:
    """Yield the options from a mapping (as written by a person) or from a list of one-key mappings (as stored)."""
    if isinstance(value, Mapping):
        yield from (_Written((str(name),), str(name), options) for name, options in value.items())
    elif isinstance(value, list | tuple) and all(isinstance(item, Mapping) and len(item) == 1 for item in value):
        for number, item in enumerate(value):
            yield from (_Written((number, str(name)), str(name), options) for name, options in item.items())
    else:
        raise PydanticCustomError("augment", "expected views with their options, for example {crop: 4, rotate: 15}")


def _read(written: Sequence[_Written], context: Any) -> tuple[tuple[str, Augmentation | None], ...]:
    """Every view built from its options; the mistakes of all of them are raised at once, each under its name."""
    parts: dict[str, Augmentation | None] = {}
    mistakes: list[InitErrorDetails] = []
    for place, name, options in written:
        try:
            kind = plugins.load("edgekd.augmentations", name)
        except EdgeKDError as error:
            mistakes.append(_mistake("edgekd_augmentation", " ".join(str(error).split()), place, options))
            continue
        if not (isinstance(kind, type) and issubclass(kind, PixelAugmentation | MixingAugmentation)):
            reason = f"{name} is neither a PixelAugmentation nor a MixingAugmentation: it can't be one of several views"
            mistakes.append(_mistake("edgekd_augmentation", reason, place, options))
        elif name in parts:
            mistakes.append(_mistake("edgekd_augmentation", f"{name} is written twice", place, options))
        elif options is None and name in _AUTOMATIC:
            continue
        elif _is_off(options):
            parts[name] = None
        elif kind.shorthand is None and not isinstance(options, Mapping | bool | None):
            fields = f" ({', '.join(kind.model_fields)})" if kind.model_fields else ""
            mistakes.append(_mistake("no_options", f"write true, false or its options{fields}", place, options))
        else:
            try:
                parts[name] = kind.model_validate(_in_full(kind, options), context=context)
            except ValidationError as error:
                bare = not isinstance(options, Mapping | bool | None)
                mistakes += [_under(place, line, bare) for line in error.errors()]
    if mistakes:
        raise ValidationError.from_exception_data("augment", mistakes)
    return tuple((name, view) for name, view in parts.items() if view is not None or name in _AUTOMATIC)


def _is_off(options: Any) -> bool:
    return isinstance(options, bool | int | float) and not options


def _in_full(kind: type[Augmentation], options: Any) -> Any:
    """Return the options as a mapping, whichever short form they are written in."""
    if options is None or options is True:
        return {}
    return options if kind.shorthand is None or isinstance(options, Mapping) else {kind.shorthand: options}


def _short(name: str, parts: Mapping[str, Augmentation | None]) -> int | bool | None:
    """Return `crop` or `flip` in the format of edgekd 0.1."""
    if name not in parts:
        return None
    view = parts[name]
    return view is not None if name == "flip" else view.pad if isinstance(view, PadCrop) else 0


def _mistake(kind: str, reason: str, place: tuple[str | int, ...], options: Any) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError(kind, "{reason}", {"reason": reason}), loc=place, input=options)


def _under(place: tuple[str | int, ...], line: Any, bare: bool) -> InitErrorDetails:
    """Return an augmentation's validation error, located where it is written; a bare value has no field of its own."""
    kind: Any = line["type"]
    try:  # a known kind keeps its own error, so that a misspelt field can be reported
        PydanticKnownError(kind, line.get("ctx"))
    except KeyError:
        kind = PydanticCustomError(kind, "{reason}", {"reason": line["msg"]})
    where = place if bare else (*place, *line["loc"])
    return InitErrorDetails(type=kind, loc=where, input=line["input"], ctx=line.get("ctx", {}))
