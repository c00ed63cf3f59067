"""Several losses added up: ``loss: {kd: {temperature: 4, weight: 0.9}}`` is 0.9 * KD + 0.1 * CE.

Each loss carries its weight. One loss at most may leave it out; it then takes what the others leave of 1. Where `ce`
is not written at all, it is added in that way, unless nothing is left. Weights that are all written may add up to
anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import SerializeAsAny, ValidationError, ValidationInfo, model_serializer, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, PydanticKnownError

from edgekd import plugins
from edgekd.distill.losses._protocol import Loss
from edgekd.errors import EdgeKDError
from edgekd.records import Record

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Combined"]

_NOTHING = 1e-9  # less than this is left of 1 only by rounding


class Combined(Record):
    """A sum of weighted losses, read from and written as a mapping from each loss's name to its options."""

    parts: tuple[tuple[str, SerializeAsAny[Loss]], ...]  # alphabetical, every weight given

    @property
    def needs_teacher(self) -> bool:
        """Whether any loss with a weight above zero looks at the teacher."""
        return any(loss.needs_teacher and loss.weight for _, loss in self.parts)

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor) -> Tensor:
        """Scalar: the weighted sum of the batch means. Shapes as in `Loss`."""
        terms = [
            loss(student_logits, teacher_logits, labels) * (loss.weight or 0.0) for _, loss in self.parts if loss.weight
        ]
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
        if not isinstance(value, Mapping) or not value:
            raise PydanticCustomError("loss", "expected losses with their options, for example {kd: {weight: 0.9}}")
        return {"parts": _weighted(_read(value, info.context))}

    @model_serializer
    def _to_mapping(self) -> dict[str, Any]:
        return {name: loss.model_dump(mode="json") for name, loss in self.parts}


def _read(options: Mapping[str, Any], context: Any) -> dict[str, Loss]:
    """Every loss built from its options; the mistakes of all of them are raised at once, each under its name."""
    losses: dict[str, Loss] = {}
    mistakes: list[InitErrorDetails] = []
    for name, given in options.items():
        try:
            kind = plugins.load("edgekd.losses", name)
        except EdgeKDError as error:
            reason = PydanticCustomError("unknown_name", "{reason}", {"reason": str(error)})
            mistakes.append(InitErrorDetails(type=reason, loc=(name,), input=given))
            continue
        try:
            losses[name] = kind.model_validate({} if given is None else given, context=context)
        except ValidationError as error:
            mistakes += [_under(name, line) for line in error.errors()]
    if mistakes:
        raise ValidationError.from_exception_data("loss", mistakes)
    return losses


def _under(name: str, line: Any) -> InitErrorDetails:
    kind: Any = line["type"]
    try:  # a known kind keeps its own words, so that whoever reports it can tell a misspelt field
        PydanticKnownError(kind, line.get("ctx"))
    except KeyError:
        kind = PydanticCustomError(kind, "{reason}", {"reason": line["msg"]})
    return InitErrorDetails(type=kind, loc=(name, *line["loc"]), input=line["input"], ctx=line.get("ctx", {}))


def _weighted(losses: dict[str, Loss]) -> tuple[tuple[str, Loss], ...]:
    """The same losses with every weight given, `ce` added where there is room for it."""
    given = sum(loss.weight for loss in losses.values() if loss.weight is not None)
    open_ = [name for name, loss in losses.items() if loss.weight is None]
    if len(open_) > 1:
        raise PydanticCustomError(
            "loss", "{names} have no weight: at most one loss may leave it out", {"names": " and ".join(open_)}
        )
    left = 1.0 - given
    if open_ and left <= _NOTHING:
        raise PydanticCustomError(
            "loss",
            "nothing is left for {name}: the other weights add up to {given}. Give it a weight, or make theirs less",
            {"name": open_[0], "given": f"{given:g}"},
        )
    if not open_ and "ce" not in losses and left > _NOTHING:
        losses = {**losses, "ce": plugins.load("edgekd.losses", "ce")()}
        open_ = ["ce"]
    if open_:
        losses = {**losses, open_[0]: losses[open_[0]].but(weight=round(left, 12))}
    if not any(loss.weight for loss in losses.values()):
        raise PydanticCustomError("loss", "every weight is zero, so there is nothing to learn")
    return tuple(sorted(losses.items()))
