"""Options of differentiable search: ``search: {by: {differentiable: ...}}``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from edgekd.records import Record

__all__ = ["AssistantOptions", "DifferentiableOptions"]


class AssistantOptions(Record):
    """Teacher assistant: a network between teacher and student, trained by the project's teacher as the teacher kind
    `train`.
    """

    width: PositiveInt = 24
    depth: PositiveInt = 1
    epochs: PositiveInt = 20


class DifferentiableOptions(Record):
    """Options of training the choice of an arch. The defaults suit small convolutional networks."""

    table: Annotated[int, Field(ge=8, le=1000)] = 24  # archs measured for the latency model
    epochs: PositiveInt = 12
    warmup: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25  # share of the training in which the choice is fixed
    hold_out: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2  # share of the training samples that the choice learns from
    end_temperature: Annotated[PositiveFloat, Field(le=1.0)] = 0.2  # of the choice; it starts at 1
    travel: PositiveFloat = 8.0  # largest change of a logit, over all steps
    bytes_pull: NonNegativeFloat = 0.02  # in units of the loss, where moving its bytes takes the whole latency budget
    tries: PositiveInt = 6  # archs near the result that are made, measured and estimated
    temperatures: tuple[PositiveFloat, ...] = ()  # of the teacher's logits, one chosen for each finalist
    assistant: AssistantOptions | None = None  # tried in the teacher's place, at each of these temperatures
