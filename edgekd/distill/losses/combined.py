"""Weighted sum of losses: ``loss: {kd: {temperature: 4, weight: 0.9}}`` is 0.9 * KD + 0.1 * CE.

Each loss has a weight. Of those on logits at most one may leave it out; it then takes what the others leave of 1. If
`ce` is not listed, it is added in that way, unless nothing is left. Explicit weights may have any sum. Feature losses
are added on top: ``{fitnet: {}}`` is 30 * FitNet + 1 * CE.

A list instead of a mapping allows one loss twice: ``[{fitnet: {points: last stage}}, {fitnet: {points: logits}}]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import SerializeAsAny, ValidationError, ValidationInfo, model_serializer, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from edgekd import plugins
from edgekd.distill.losses._protocol import FeatureLoss, Loss, Term
from edgekd.errors import EdgeKDError
from edgekd.records import Record, mistakes_under

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Combined"]

_NOTHING = 1e-9  # less than this is left of 1 only by rounding

Named = tuple[str, Term]


class Combined(Record):
    """Weighted sum of losses, read from and written as a mapping from each loss's name to its options."""

    parts: tuple[tuple[str, SerializeAsAny[Term]], ...]  # alphabetical; a weight is left open only where others change

    @property
    def needs_teacher(self) -> bool:
        """True if a loss with a weight above zero at any time uses the teacher."""
        return any(loss.needs_teacher for _, loss in self.parts if _counts(loss))

    @property
    def features(self) -> tuple[tuple[str, FeatureLoss], ...]:
        """Feature losses with a weight above zero at any time."""
        return tuple((name, loss) for name, loss in self.parts if isinstance(loss, FeatureLoss) and _counts(loss))

    @property
    def on_logits(self) -> bool:
        """True if a loss on logits has a weight above zero at any time."""
        return any(isinstance(loss, Loss) and _counts(loss) for _, loss in self.parts)

    @property
    def changes(self) -> bool:
        """True if any loss has a schedule."""
        return any(loss.schedule for _, loss in self.parts)

    def at(self, progress: float) -> Combined:
        """Return the sum as it is when a share ``progress`` (0 to 1) of the training is done."""
        if not self.changes:
            return self
        parts = tuple((name, loss.at(progress)) for name, loss in self.parts)
        return Combined(parts=_filled(parts))

    @property
    def mixed_labels(self) -> bool:
        """True if all losses accept class shares as labels."""
        return all(loss.mixed_labels for _, loss in self.parts if _counts(loss))

    def terms(self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor) -> list[Tensor]:
        """Return the weighted batch means of the losses on logits. Shapes as in `Loss`."""
        return [
            loss(student_logits, teacher_logits, labels) * loss.weight
            for _, loss in self.parts
            if isinstance(loss, Loss) and loss.weight
        ]

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor) -> Tensor:
        """Return the weighted sum of the batch means of the losses on logits, a scalar."""
        terms = self.terms(student_logits, teacher_logits, labels)
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    @model_validator(mode="before")
    @classmethod
    def _from_mapping(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, Mapping) and set(value) == {"parts"}:
            return value
        if isinstance(value, str):  # `loss: ce`
            value = {value: {}}
        if (
            isinstance(value, Sequence)
            and value
            and all(isinstance(part, Mapping) and len(part) == 1 for part in value)
        ):
            given = [next(iter(part.items())) for part in value]
        elif isinstance(value, Mapping) and value:
            given = list(value.items())
        else:
            raise PydanticCustomError("loss", "expected losses with their options, for example {kd: {weight: 0.9}}")
        return {"parts": _weighted(_read([(str(name), options) for name, options in given], info.context))}

    @model_serializer
    def _to_mapping(self) -> Any:
        written = [(name, loss.model_dump(mode="json")) for name, loss in self.parts]
        unscheduled = [
            (name, {key: option for key, option in options.items() if option or key not in ("schedule", "standardize")})
            for name, options in written
        ]
        twice = len({name for name, _ in self.parts}) < len(self.parts)
        return [{name: options} for name, options in unscheduled] if twice else dict(unscheduled)


def _counts(loss: Term) -> bool:
    """Return whether the loss has a weight above zero at any time."""
    return loss.weight is None or loss.weight > 0 or "weight" in loss.schedule


def _read(options: Sequence[tuple[str, Any]], context: Any) -> list[Named]:
    """Build every loss from its options; all validation errors are raised together, each under its loss's name."""
    losses: list[Named] = []
    mistakes: list[InitErrorDetails] = []
    for name, given in options:
        try:
            kind = plugins.load("edgekd.losses", name)
        except EdgeKDError as error:
            reason = PydanticCustomError("edgekd_loss", "{reason}", {"reason": " ".join(str(error).split())})
            mistakes.append(InitErrorDetails(type=reason, loc=(name,), input=given))
            continue
        if not (isinstance(kind, type) and issubclass(kind, Term)):
            reason = PydanticCustomError("edgekd_loss", "{name} is neither a Loss nor a FeatureLoss", {"name": name})
            mistakes.append(InitErrorDetails(type=reason, loc=(name,), input=given))
            continue
        try:
            losses.append((name, kind.model_validate({} if given is None else given, context=context)))
        except ValidationError as error:
            mistakes += mistakes_under(name, error)
    if mistakes:
        raise ValidationError.from_exception_data("loss", mistakes)
    return losses


def _weighted(losses: list[Named]) -> tuple[Named, ...]:
    """Return the losses with every weight set, and `ce` added if the weights leave room."""
    on_logits = [(name, loss) for name, loss in losses if isinstance(loss, Loss)]
    given = sum(loss.weight for _, loss in on_logits if loss.weight is not None)
    open_ = [name for name, loss in on_logits if loss.weight is None]
    changing = any("weight" in loss.schedule for _, loss in on_logits)
    if len(open_) > 1:
        raise PydanticCustomError(
            "loss", "{names} have no weight: at most one loss may leave it out", {"names": " and ".join(open_)}
        )
    left = 1.0 - given
    if open_ and left <= _NOTHING and not changing:
        raise PydanticCustomError(
            "loss",
            "nothing is left for {name}: the other weights add up to {given}. Give it a weight, or make theirs less",
            {"name": open_[0], "given": f"{given:g}"},
        )
    labels_too = all(loss.labels_too for _, loss in losses if isinstance(loss, FeatureLoss))
    room = changing or left > _NOTHING
    if not open_ and not any(name == "ce" for name, _ in losses) and room and (labels_too or on_logits):
        losses = [*losses, ("ce", plugins.load("edgekd.losses", "ce")())]
    losses = losses if changing else list(_filled(losses))
    if not any(_counts(loss) for _, loss in losses):
        raise PydanticCustomError("loss", "every weight is zero, so there is nothing to learn")
    if (silent := _silent(losses)) is not None:
        done = {"done": f"{silent:.0%}"}
        raise PydanticCustomError("loss", "when {done} of the training is done, every weight is zero", done)
    return tuple(sorted(losses, key=lambda named: named[0]))


def _silent(losses: Sequence[Named]) -> float | None:
    """Return the share of the training at which all weights are zero; None if there is always one above zero."""
    ramps = [loss.schedule["weight"] for _, loss in losses if "weight" in loss.schedule]
    turns = {0.0, 1.0, *(share for ramp in ramps for share in (ramp.start, ramp.end))}  # in between, none reaches zero
    for progress in sorted(turns):
        if not any(loss.weight for _, loss in _filled([(name, loss.at(progress)) for name, loss in losses])):
            return progress
    return None


def _filled(losses: Sequence[Named]) -> tuple[Named, ...]:
    """Give the loss without a weight what the others leave of 1, or 0 if they add up to more."""
    given = sum(loss.weight for _, loss in losses if isinstance(loss, Loss) and loss.weight is not None)
    left = max(0.0, round(1.0 - given, 12))
    return tuple((name, loss.but(weight=left) if loss.weight is None else loss) for name, loss in losses)
