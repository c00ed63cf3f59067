"""The measuring loop on a clock that only the calls move."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from edgekd.agent import timing


class Clock:
    """Time in ns; a call takes the next of the given durations, sleeping takes what it says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0
        monkeypatch.setattr(timing.time, "perf_counter_ns", lambda: self.now)
        monkeypatch.setattr(timing.time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)

    def calls(self, durations_us: Iterable[float]) -> Callable[[], None]:
        left = iter(durations_us)

        def call() -> None:
            self.now += round(next(left) * 1e3)

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def forever(first: list[float], then: float) -> Iterable[float]:
    yield from first
    while True:
        yield then


def test_quantile_is_numpys() -> None:
    values = sorted(np.random.default_rng(0).standard_normal(37).tolist())
    for share in (0.0, 0.05, 0.5, 0.95, 0.99, 1.0):
        assert timing.quantile(values, share) == pytest.approx(np.quantile(values, share))
    with pytest.raises(ValueError, match="no quantile"):
        timing.quantile([], 0.5)


def test_warm_up_goes_on_until_the_median_settles(clock: Clock) -> None:
    settled = timing.warm_up(clock.calls(forever([], 100.0)), least_ms=10.0)
    assert settled == pytest.approx(100, abs=1)  # steady from the start: no longer than asked
    falling = [1000.0 - step for step in range(0, 500, 5)]
    clock.now = 0
    assert timing.warm_up(clock.calls(forever(falling, 500.0)), least_ms=10.0) > len(falling) / 2
    assert clock.now > 20e6


def test_warm_up_ends_when_nothing_settles(clock: Clock) -> None:
    growing = (100.0 * 1.2**step for step in range(10_000))
    timing.warm_up(clock.calls(growing), least_ms=10.0)
    assert 100e6 <= clock.now < 130e6  # ten times as long, and the call under way


def test_a_slow_model_is_warmed_by_one_call(clock: Clock) -> None:
    assert timing.warm_up(clock.calls(forever([], 5e6)), least_ms=10.0) == 1


def test_a_closed_round_has_time_and_calls(clock: Clock) -> None:
    fast = timing.run_closed(clock.calls(forever([], 100.0)), None, round_ms=1.0, min_calls=5)
    assert list(fast.calls_ns) == [100_000] * 10
    slow = timing.run_closed(clock.calls(forever([], 10_000.0)), lambda: 9.0, round_ms=1.0, min_calls=5)
    assert len(slow.calls_ns) == 5
    assert list(slow.runtime_us) == [9.0] * 5


def test_a_periodic_round_sleeps_between_calls_and_counts_the_late(clock: Clock) -> None:
    easy = timing.run_periodic(clock.calls(forever([], 100.0)), None, 10.0, 1, rate_hz=1000.0)
    assert clock.now == 10_000_000 + 100_000
    assert len(easy.calls_ns) == 10
    assert easy.missed == 0
    hard = timing.run_periodic(clock.calls(forever([], 5_000.0)), None, 1.0, 4, rate_hz=1000.0)
    assert list(hard.calls_ns) == [5_000_000] * 4
    assert hard.missed == 3


def test_summary_pools_calls_and_keeps_rounds_apart(clock: Clock) -> None:
    rounds = [timing.run_closed(clock.calls(forever([], us)), None, 1.0, 1) for us in (100.0, 200.0)]
    times, lows = timing.summary_us(rounds)
    assert times == [100.0] * 10 + [200.0] * 5
    assert lows == [100.0, 200.0]
