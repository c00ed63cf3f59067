"""What a person may write under ``search: {by: {differentiable: ...}}``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from edgekd.records import Record

__all__ = ["AssistantOptions", "RelaxOptions"]


class AssistantOptions(Record):
    """A network between teacher and student, trained here by the project's teacher: as the teacher kind `train`."""

    width: PositiveInt = 24
    depth: PositiveInt = 1
    epochs: PositiveInt = 20


class RelaxOptions(Record):
    """How the choice of an arch is trained. The defaults suit small convolutional networks."""

    table: Annotated[int, Field(ge=8, le=1000)] = 24  # archs measured for the model of latency
    epochs: PositiveInt = 12
    warmup: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25  # share of the training in which the choice stands still
    hold_out: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2  # share of the training samples that the choice learns from
    end_temperature: Annotated[PositiveFloat, Field(le=1.0)] = 0.2  # of the choice; it begins at 1
    travel: PositiveFloat = 8.0  # how far a logit can go, all steps together
    bytes_pull: NonNegativeFloat = 0.02  # in units of the loss, where its bytes take the whole budget's time to move
    tries: PositiveInt = 6  # archs around what came out that are made, measured and estimated
    temperatures: tuple[PositiveFloat, ...] = ()  # of the teacher's answers, one chosen for each finalist
    assistant: AssistantOptions | None = None  # tried in the teacher's place, at each of these temperatures
