"""Base classes of losses: on logits (`Loss`) and on features (`FeatureLoss`), frozen records of their options.

``weight`` is a loss's factor in a combination; the loss itself never applies it. Any numeric option may change during a
training: ``temperature: {from: 8, to: 2}`` (`schedule.Ramp`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

from pydantic import NonNegativeFloat, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from edgekd.distill.schedule import Ramp
from edgekd.records import Record

if TYPE_CHECKING:
    from torch import Tensor

    from edgekd.distill.losses.criterion import Criterion
    from edgekd.students.points import Point

__all__ = ["Choice", "FeatureLoss", "Loss", "OfLabels", "OfNumbers", "OutputKind", "Site", "Term"]

OutputKind = Literal["classes", "labels", "numbers"]
"""Kind of outputs: exclusive classes, independent labels (multilabel), or numbers (regression)."""

Choice = Literal["each stage", "last stage", "penultimate", "logits"] | tuple[tuple[str, str], ...]
"""Points that a feature loss compares: a rule, or pairs of student and teacher points by name."""


class Term(Record):
    """Base of every loss: weight and schedule. Subclass `Loss` or `FeatureLoss`."""

    needs_teacher: ClassVar[bool] = True  # true: it can't be used without a teacher
    mixed_labels: ClassVar[bool] = True  # true: labels may be class shares (N, C)
    paper: ClassVar[str] = ""  # first author, year, title, venue
    use: ClassVar[str] = ""  # when to choose it, in a sentence

    weight: NonNegativeFloat | None = None
    schedule: Mapping[str, Ramp] = {}  # options that change; each begins with the value of its field

    @model_validator(mode="before")
    @classmethod
    def _lifted(cls, value: Any) -> Any:
        """Convert ``weight: {from: 1, to: 0}`` to ``weight: 1`` and a schedule."""
        if not isinstance(value, Mapping):
            return value
        ramps = {name: given for name, given in value.items() if isinstance(given, Mapping) and "from" in given}
        written = value.get("schedule", {})
        if not ramps or not isinstance(written, Mapping):
            return value
        begun = {name: given["from"] for name, given in ramps.items()}
        return {**value, **begun, "schedule": {**written, **ramps}}

    @model_validator(mode="after")
    def _scheduled(self) -> Self:
        for name, ramp in self.schedule.items():
            if not isinstance(getattr(self, name, None), float) or name not in type(self).model_fields:
                raise PydanticCustomError("schedule", "`{name}` is not a number that can change", {"name": name})
            if getattr(self, name) != ramp.from_:
                begun = {"name": name, "from": f"{ramp.from_:g}"}
                raise PydanticCustomError("schedule", "{name} changes from {from}: leave out its other value", begun)
            try:
                type(self).model_validate({**dict(self), name: ramp.to, "schedule": {}})
            except ValidationError as error:
                reason = {"name": name, "reason": error.errors()[0]["msg"], "to": f"{ramp.to:g}"}
                raise PydanticCustomError("schedule", "{name} ends at {to}: {reason}", reason) from error
        return self

    def at(self, progress: float) -> Self:
        """Return the loss as it is when a share ``progress`` (0 to 1) of the training is done, without a schedule."""
        if not self.schedule:
            return self
        return self.but(**{name: ramp.at(progress) for name, ramp in self.schedule.items()}, schedule={})


class Loss(Term):
    """Base of losses on logits. Without a weight it takes what the others leave of 1 (see combined.py)."""

    formless: ClassVar[str] = "it is written for classes that exclude each other"  # why not `OfLabels` or `OfNumbers`

    every_pair: ClassVar[bool] = False  # true: memory grows with the square of the batch
    standardize: bool = False  # see standardize.py; for losses that compare with the teacher

    @model_validator(mode="after")
    def _standardizes_something(self) -> Self:
        if self.standardize and not self.needs_teacher:
            raise PydanticCustomError("loss", "there is no teacher whose logits could be standardized")
        return self

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor) -> Tensor:
        """Return the mean over the batch, a scalar, before ``weight``.

        Both logits are (N, C), raw (before any temperature); labels are (N,) int64, or class shares (N, C) for mixed
        samples. No gradient reaches the teacher. Raises ValueError if a needed teacher is None.
        """
        if self.needs_teacher:
            if teacher_logits is None:
                raise ValueError(f"{type(self).__name__} needs the teacher's logits, found None")
            teacher_logits = teacher_logits.detach()
            if self.standardize:
                from edgekd.distill.losses.standardize import standardized

                student_logits, teacher_logits = standardized(student_logits), standardized(teacher_logits)
            return self.value(student_logits, teacher_logits, labels)
        return self.value(student_logits, student_logits.detach(), labels)

    @abstractmethod
    def value(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Compute `__call__`'s result. A loss that needs no teacher must not use ``teacher_logits``."""


@runtime_checkable
class OfLabels(Protocol):
    """Loss that also has a multilabel form."""

    def of_labels(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Return the scalar mean over the batch.

        Logits (N, C), C >= 1, one for each label; no gradient reaches the teacher.
        """
        ...


@runtime_checkable
class OfNumbers(Protocol):
    """Loss that also has a regression form."""

    def of_numbers(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the scalar mean over the batch.

        Standardised numbers (N, C), C >= 1; no gradient reaches the teacher.
        """
        ...


@dataclass(frozen=True)
class Site:
    """Inputs of a feature loss: the pairs of points that it compares, and facts needed to set it up."""

    pairs: tuple[tuple[Point, Point], ...]  # the student's point and the teacher's, from high resolution to low
    samples: int  # in the training split
    classes: int
    classifier: tuple[Tensor, Tensor] | None = None  # the teacher's last linear layer: (classes, width), (classes,)
    student_classifier: str = ""  # path of the student's; empty where it has none
    student_width: int = 0  # its input width


class FeatureLoss(Term):
    """Base of losses on features (inner activations). Its weight is a plain factor and takes nothing from the labels'.

    Only the weight can change during a training: the criterion is set up once.
    """

    labels_too: ClassVar[bool] = True  # true: `ce` is added unless it is written
    adds_layers: ClassVar[bool] = False  # true: the student gets extra trained layers
    on: ClassVar[tuple[Literal["map", "vector"], ...]] = ("map", "vector")  # kinds of activations it accepts
    mixes: ClassVar[bool] = False  # true: a map may be paired with a vector

    weight: NonNegativeFloat = 1.0
    points: Choice = "each stage"

    @model_validator(mode="after")
    def _changes_in_weight_alone(self) -> Self:
        if others := sorted(set(self.schedule) - {"weight"}):
            reason = {"names": " and ".join(others)}
            raise PydanticCustomError("schedule", "{names} can't change: only the weight can, of this loss", reason)
        return self

    def problem(self, site: Site) -> str:
        """Return why the loss can't be used at this site, as half a sentence; empty if it can."""
        kinds = {"map" if len(point.shape) == 3 else "vector" for pair in site.pairs for point in pair}
        if others := kinds - set(self.on):
            return f"it compares {' and '.join(f'{kind}s' for kind in self.on)}, and this point gives a {min(others)}"
        return ""

    @abstractmethod
    def criterion(self, site: Site) -> Criterion:
        """Return the module that computes the loss; its parameters are trained with the student and then dropped.

        Initial weights come from torch's global generator.
        """
