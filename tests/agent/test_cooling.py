"""A hot device waits, but not for ever."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgekd.agent import cooling
from edgekd.agent.cooling import Cooling
from edgekd.testing.fakes.clock import FakeClock


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooling, "_LOOK_EVERY_S", 0.01)


def test_it_waits_until_it_is_cool() -> None:
    temperatures, pulses = iter([61.0, 58.0, 45.0, 99.0]), []
    assert Cooling(45.0, 60.0).wait(lambda: pulses.append(1), lambda: next(temperatures)) == ""
    assert len(pulses) == 2
    assert next(temperatures) == 99.0


def test_patience_ends_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, looks = FakeClock(), []
    monkeypatch.setattr(cooling, "time", SimpleNamespace(monotonic=clock, sleep=clock.sleep))
    monkeypatch.setattr(cooling, "_LOOK_EVERY_S", 0.25)
    assert Cooling(45.0, 10.0).wait(lambda: looks.append(clock()), lambda: 80.4) == "not cool: 80 C after 10 s"
    assert looks == [0.25 * look for look in range(40)]
    assert clock() == 10.0


def test_it_does_not_look_where_nobody_asked() -> None:
    assert Cooling().wait(lambda: pytest.fail("waited"), lambda: pytest.fail("looked")) == ""


def test_a_sensor_that_falls_silent_holds_nothing_up() -> None:
    why = Cooling(45.0, 60.0).wait(lambda: pytest.fail("waited"), lambda: None)
    assert why == "not cool: its temperature is no longer reported"
