"""Energy by meters that report power in steps: a sensor's tree, whose power follows what a worker is asked to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.agent import energy, meters
from edgekd.agent.limits import Limits, Yard
from edgekd.agent.messages import JobRequest, PlanRequest
from edgekd.agent.meters import TooSlow, open_meter

PLAN = PlanRequest(
    processes=1, rounds=1, round_ms=1.0, min_calls=1, warmup_ms=1.0, busy=0, rate_hz=0.0, sentinel=False,
    profile=False, energy=True, energy_window_s=0.4, load_deadline_s=1.0, call_deadline_s=1.0,
    memory_limit_bytes=0, seed=0,
)  # fmt: skip
Watts = Callable[[float], float]
"""Of the share of a window that has passed."""


def steady(watts: float) -> Watts:
    return lambda _: watts


def flips(low: float, high: float, count: int) -> Watts:
    return lambda share: high if int(share * (count + 1)) % 2 else low


class Worker:
    """Stands for `Child`: what it is asked for it does by drawing as much."""

    place: Path
    draws: dict[str, Watts]
    took: tuple[float, int] = (PLAN.energy_window_s, 100)  # seconds, calls

    drawing: Callable[[], float] = staticmethod(lambda: 1.0)

    def __init__(self, *_: Any) -> None:
        pass

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, op: str, _deadline_s: float, **fields: Any) -> dict[str, Any]:
        begin_s, window_s = time.monotonic(), PLAN.energy_window_s
        Worker.drawing = lambda: self.draws[op](min((time.monotonic() - begin_s) / window_s, 0.999))
        time.sleep(window_s)
        return dict(zip(("elapsed_s", "calls"), self.took, strict=True))

    def open(self, _deadline_s: float) -> None:
        pass

    def load(self, _deadline_s: float, _seed: int) -> None:
        pass

    first = open

    @classmethod
    def read(cls, path: str) -> float:
        """In place of `meters._number`: a reading is of the very moment, also on a busy machine."""
        assert path == str(cls.place)
        return round(cls.drawing() * 1e6)


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Watts, Watts], dict[str, Any]]:
    """What one process comes to, by the power at rest and at work; one window, no longer ones after it."""
    place = tmp_path / "sys/class/hwmon/hwmon0"
    place.mkdir(parents=True)
    (place / "name").write_text("ina219\n")
    Worker.place = place / "power1_input"
    monkeypatch.setattr(energy, "Child", Worker)
    monkeypatch.setattr(Worker, "drawing", staticmethod(lambda: 1.0))
    monkeypatch.setattr(meters, "_number", Worker.read)
    monkeypatch.setattr(energy, "_LONGEST_S", PLAN.energy_window_s)

    def sampled(rest: Watts, work: Watts) -> dict[str, Any]:
        Worker.draws = {"warm": rest, "rest": rest, "round": work}
        Worker.place.write_text("1000000\n")  # the channel is there
        meter = open_meter("hwmon", root=str(tmp_path))
        return energy.sample(JobRequest("null", "none", "", "", 1, {}), PLAN, meter, Yard(Limits()), lambda: None)

    return sampled


@pytest.mark.slow
def test_a_power_is_known_no_better_than_the_steps_it_is_reported_in(sample: Callable[..., Any]) -> None:
    found = sample(steady(2.0), flips(2.5, 2.52, 20))
    assert found["unsure_w"] == pytest.approx(0.02)  # at rest it stood at one step
    assert found["joules"] == pytest.approx(0.51 * PLAN.energy_window_s / 100, rel=0.05)


@pytest.mark.slow
def test_calls_that_take_longer_than_the_window_are_reported_by_their_own_time(
    sample: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "took", (1.5, 1))
    found = sample(steady(2.0), flips(2.5, 2.52, 20))
    assert (found["window_s"], found["calls"]) == (1.5, 1)
    assert found["joules"] == pytest.approx(0.51 * 1.5, rel=0.05)


@pytest.mark.slow
def test_a_mean_of_many_changes_is_known_better(sample: Callable[..., Any]) -> None:
    found = sample(flips(2.0, 2.02, 20), flips(2.5, 2.52, 20))
    assert 0.02 / 20**0.5 * 0.9 < found["unsure_w"] < 0.02 / 8**0.5 * 1.1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rest", "work"),
    [
        (steady(2.0), flips(2.04, 2.06, 20)),  # two steps and a half
        (steady(2.0), steady(2.02)),  # one, or one that is larger than anybody knows
        (flips(2.04, 2.06, 20), steady(2.0)),  # less than at rest
        (flips(4.0, 4.06, 3), flips(4.14, 4.16, 20)),  # a slow meter moved by 1.5 % of 4 W, and work adds little more
    ],
)
def test_less_than_three_steps_is_no_difference(rest: Watts, work: Watts, sample: Callable[..., Any]) -> None:
    with pytest.raises(TooSlow, match=r"hwmon ina219 \(hwmon0\)/1 is too coarse: .* each only known to 0.0"):
        sample(rest, work)


@pytest.mark.slow
def test_a_slow_meter_that_moved_little_beside_the_work_is_used(sample: Callable[..., Any]) -> None:
    found = sample(flips(4.0, 4.06, 3), flips(5.0, 5.02, 20))
    assert found["unsure_w"] == pytest.approx(0.06)
