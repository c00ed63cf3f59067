"""State of a phone beside its kernel's: screen, charging, battery, and how far Android throttles it.

From Android's own ``dumpsys``, by the shell that adb gives. A phone without it (a chroot, Termux over ssh) tells
nothing of this, and what a newer Android words differently is left out, never guessed.
"""

from __future__ import annotations

import re
from typing import Literal

from edgekd.devices.shell import Shell, ask
from edgekd.records import Record

__all__ = ["PhoneState", "read_state", "state_of"]

_DEADLINE_S = 15.0
_SCRIPT = """command -v dumpsys >/dev/null 2>&1 || exit 0
for S in power battery thermalservice; do echo "== $S"; dumpsys "$S" 2>/dev/null </dev/null; done
true"""
_WAKEFULNESS = re.compile(r"^\s*mWakefulness=(\w+)", re.MULTILINE)
_THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""Android's thermal statuses, from 0 (``PowerManager.THERMAL_STATUS_NONE``)."""


class PhoneState(Record):
    """State of a phone; a field is None where the phone doesn't tell it."""

    screen: Literal["on", "off"] | None = None
    charging: bool | None = None
    battery_percent: int | None = None
    battery_c: float | None = None
    throttling: str | None = None  # one of Android's thermal statuses

    def __str__(self) -> str:
        words = [
            f"screen {self.screen}" if self.screen else "",
            "" if self.charging is None else "charging" if self.charging else "on battery",
            "" if self.battery_percent is None else f"battery {self.battery_percent} %",
            "" if self.battery_c is None else f"{self.battery_c:g} C",
            "" if self.throttling is None else f"throttling {self.throttling}",
        ]
        return ", ".join(word for word in words if word)


def state_of(shell: Shell) -> PhoneState:
    """Ask the phone. Raises DeviceUnreachable."""
    return read_state(ask(shell, _SCRIPT, _DEADLINE_S))


def read_state(text: str) -> PhoneState:
    """Out of what dumpsys says: ``power``, ``battery`` and ``thermalservice``, each behind a line ``== NAME``."""
    parts = dict(re.findall(r"^== (\w+)\n(.*?)(?=^== |\Z)", text, re.MULTILINE | re.DOTALL))
    power, battery = parts.get("power", ""), parts.get("battery", "")
    awake = _WAKEFULNESS.search(power)
    facts = dict(re.findall(r"^\s*([A-Za-z ]+?): (-?\w+)\s*$", battery, re.MULTILINE))
    powered = [value for name, value in facts.items() if name.endswith(" powered")]
    level, scale, tenths = (_number(facts.get(name)) for name in ("level", "scale", "temperature"))
    thermal = re.search(r"^\s*Thermal Status: (\d)\s*$", parts.get("thermalservice", ""), re.MULTILINE)
    status = int(thermal.group(1)) if thermal else len(_THERMAL)
    return PhoneState(
        screen=None if awake is None else "on" if awake.group(1) == "Awake" else "off",
        charging="true" in powered if powered else None,
        battery_percent=None if level is None or not scale else round(100 * level / scale),
        battery_c=None if tenths is None else tenths / 10,
        throttling=_THERMAL[status] if status < len(_THERMAL) else None,
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"-?\d{1,6}", text) else None
