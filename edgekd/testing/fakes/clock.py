"""A clock on which sleeping is advancing: hours of waiting pass in no time, the same on every run."""

from __future__ import annotations

__all__ = ["FakeClock"]


class FakeClock:
    """Seconds since its own beginning. Calling it reads it, like ``time.monotonic``."""

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s

    def __call__(self) -> float:
        """Seconds now."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let time pass. Raises ValueError on a step backwards."""
        if seconds < 0.0:
            raise ValueError(f"a clock can't go back by {-seconds} s")
        self._now_s += seconds

    sleep = advance
