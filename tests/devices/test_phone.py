"""What Android says of itself, as its dumpsys words it."""

from __future__ import annotations

import pytest

from edgekd.devices.phone import PhoneState, read_state

POWER = """\
== power
POWER MANAGER (dumpsys power)

Power Manager State:
  mDirty=0x0
  mWakefulness=Asleep
  mWakefulnessChanging=false
"""
BATTERY = """\
== battery
Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  status: 2
  present: true
  level: 170
  scale: 200
  voltage: 4123
  temperature: 314
  technology: Li-ion
"""
THERMAL = """\
== thermalservice
IsStatusOverride: false
ThermalEventListeners:
Thermal Status: 2
Cached temperatures:
"""


def test_all_of_it() -> None:
    state = read_state(POWER + BATTERY + THERMAL)
    assert state == PhoneState(screen="off", charging=True, battery_percent=85, battery_c=31.4, throttling="moderate")
    assert str(state) == "screen off, charging, battery 85 %, 31.4 C, throttling moderate"


def test_unplugged_and_awake() -> None:
    unplugged = BATTERY.replace("USB powered: true", "USB powered: false")
    state = read_state(POWER.replace("Asleep", "Awake") + unplugged)
    assert (state.screen, state.charging, state.throttling) == ("on", False, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "== power\n== battery\n== thermalservice\n",
        "nonsense",
        "== battery\n  level: much\n  scale: 0\n",
        THERMAL[:40],
    ],
)
def test_what_is_not_reported_is_left_out(text: str) -> None:
    assert read_state(text) == PhoneState()
    assert str(read_state(text)) == ""


def test_a_status_that_came_later_is_not_guessed() -> None:
    assert read_state(THERMAL.replace("Status: 2", "Status: 9")).throttling is None
