"""A device that is hot is slow: before each round of fresh processes it may cool down."""

from __future__ import annotations

import time
from typing import Callable, NamedTuple, Optional

from edgekd.agent.conditions import conditions

__all__ = ["Cooling", "temperature_c"]

_LOOK_EVERY_S = 1.0


class Cooling(NamedTuple):
    """Down to ``below_c``, but no longer than ``patience_s``; 0 is never."""

    below_c: float = 0.0
    patience_s: float = 0.0

    def __str__(self) -> str:
        return "below %g C" % self.below_c if self.below_c else ""

    def wait(self, waiting: Callable[[], None], sensor: Callable[[], Optional[float]]) -> str:
        """Return once it is as cool, or why it is not: patience has ended, or the sensor is silent.

        ``waiting`` is called meanwhile.
        """
        end = time.monotonic() + self.patience_s
        while self.below_c:
            degrees = sensor()
            if degrees is None:
                return "not cool: its temperature is no longer reported"
            if degrees <= self.below_c:
                break
            if time.monotonic() >= end:
                return "not cool: %.0f C after %g s" % (degrees, self.patience_s)
            waiting()
            time.sleep(_LOOK_EVERY_S)
        return ""


def temperature_c() -> Optional[float]:
    """The processor's; None where this machine doesn't tell."""
    found = conditions()
    return found.get("temperature_c") if found else None
