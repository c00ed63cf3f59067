"""Schedules of a training: the learning rate of every step, and a loss's numeric options by epoch.

Learning-rate schedules:

- `cosine`: a linear warm-up, then half a cosine down to zero (Loshchilov & Hutter 2017, arXiv 1608.03983, without
  restarts);
- `one-cycle`: up from a 25th of the peak over the first three tenths, then down to nearly zero, both by half a cosine
  (Smith & Topin 2018, arXiv 1708.07120, in the form of torch's OneCycleLR; momentum is constant). No warm-up;
- `constant-then-decay`: a linear warm-up, the peak, and in the last fifth down to zero by ``1 - sqrt(share done)``
  (Hägele et al. 2024, arXiv 2405.18392; Hu et al. 2024, arXiv 2404.06395).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgekd.records import Record

__all__ = ["Ramp", "Schedule", "learning_rate"]

Schedule = Literal["cosine", "one-cycle", "constant-then-decay"]
"""Learning-rate schedule of a training."""

_RISE, _BEGIN, _END = 0.3, 1 / 25, 1 / 25e4  # of a cycle: share of the steps; rates as shares of the peak
_DECAY = 0.2  # share of the steps that decay after the constant rate

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Ramp(Record):
    """Number that changes ``from`` one value ``to`` another: ``temperature: {from: 8, to: 2}``.

    ``start`` and ``end`` are shares of the training; before and after them the number is constant.
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
        """Return the value when a share ``progress`` of the training is done, 0 to 1."""
        if progress < self.start:
            return self.from_
        done = min(1.0, (progress - self.start) / max(self.end - self.start, 1e-12))
        if self.shape == "cosine":
            return _bent(self.from_, self.to, done)
        return self.from_ + (self.to - self.from_) * done


def learning_rate(step: int, steps: int, warmup_steps: int, peak: float, schedule: Schedule = "cosine") -> float:
    """Return the rate of step ``step`` of ``steps``, counted from 0. The first step is never at zero."""
    if schedule == "one-cycle":
        top = max(0.0, _RISE * steps - 1)  # the step at the peak
        if step <= top:
            return peak * _bent(_BEGIN, 1.0, step / top if top else 1.0)
        return peak * _bent(1.0, _END, (step - top) / (steps - 1 - top))
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if schedule == "constant-then-decay":
        decay = max(1.0, _DECAY * steps)
        return peak * (1.0 - math.sqrt(max(0.0, step - (steps - decay)) / decay))
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1.0 + math.cos(math.pi * done))


def _bent(start: float, end: float, done: float) -> float:
    """Interpolate between two values by half a cosine."""
    return start + (end - start) * (0.5 - 0.5 * math.cos(math.pi * done))
