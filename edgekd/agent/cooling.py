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

    def wait(self, waiting: Callable[[], None], told: Callable[[], Optional[float]]) -> None:
        """Return once it is as cool, or patience has ended; ``waiting`` is called meanwhile."""
        end = time.monotonic() + (self.patience_s if self.below_c else 0.0)
        while time.monotonic() < end:
            degrees = told()
            if degrees is None or degrees <= self.below_c:
                return
            waiting()
            time.sleep(_LOOK_EVERY_S)


def temperature_c() -> Optional[float]:
    """The processor's; None where this machine doesn't tell."""
    found = conditions()
    return found["temperature_c"] if found else None
