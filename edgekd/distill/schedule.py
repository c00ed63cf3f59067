"""What changes while a student trains: the learning rate of every step, and a loss's numbers from epoch to epoch.

The rate: a linear warm-up, then half a cosine down to zero (Loshchilov & Hutter 2017, arXiv 1608.03983, without
restarts).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgekd.records import Record

__all__ = ["Ramp", "learning_rate"]

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Ramp(Record):
    """A number that goes ``from`` one value ``to`` another: ``temperature: {from: 8, to: 2}``.

    ``start`` and ``end`` are shares of the training; before and after them the number stands still.
    """

    from_: float = Field(alias="from")
    to: float
    start: Share = 0.0
    end: Share = 1.0
    shape: Literal["linear", "cosine"] = "linear"

    model_config = Record.model_config | {"populate_by_name": True, "serialize_by_alias": True}

    @model_validator(mode="after")
    def _forwards(self) -> Ramp:
        if self.start > self.end:
            raise ValueError(f"it starts at {self.start:g} of the training and ends at {self.end:g}, before that")
        return self

    def at(self, progress: float) -> float:
        """The value when a share ``progress`` of the training is done, 0 to 1."""
        if progress < self.start:
            return self.from_
        done = min(1.0, (progress - self.start) / max(self.end - self.start, 1e-12))
        bent = 0.5 - 0.5 * math.cos(math.pi * done) if self.shape == "cosine" else done
        return self.from_ + (self.to - self.from_) * bent


def learning_rate(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """The rate for one step of ``steps``, counted from 0. The first step is never at zero."""
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * done))
