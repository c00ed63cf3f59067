"""Temperature and clock at one moment, read by the measured process itself: its own core is the one that counts.

The temperature is the hottest thermal zone whose type names the processor; a battery's or a radio's says nothing of it.
The clock is the core's as cpufreq tells, or else as /proc/cpuinfo does (in a virtual machine a constant). What the
machine doesn't tell is None.
"""

from __future__ import annotations

import math
import os
import re
from typing import Dict, List, Optional

__all__ = ["conditions"]

_PROCESSOR = re.compile(r"cpu|pkg|package|soc|core|cluster|acpitz", re.IGNORECASE)
_PLAUSIBLE_C = (-40.0, 150.0)  # a sensor that is off answers 0 K, or worse
_PLACE_OF_CORE = 36  # in /proc/PID/stat, counted behind the command's closing bracket


def conditions(root: str = "/") -> Optional[Dict[str, Optional[float]]]:
    """``temperature_c`` and ``clock_mhz``; None where the machine tells neither. ``root`` holds /proc and /sys."""
    found = {"temperature_c": _temperature_c(root), "clock_mhz": _clock_mhz(root)}
    return found if any(value is not None for value in found.values()) else None


def _temperature_c(root: str) -> Optional[float]:
    folder = os.path.join(root, "sys/class/thermal")
    zones = [name for name in _names(folder) if name.startswith("thermal_zone")]
    hot: List[float] = []
    for zone in zones:
        if _PROCESSOR.search(_read(os.path.join(folder, zone, "type"))):
            degrees = _number(_read(os.path.join(folder, zone, "temp")))
            if degrees is not None and _PLAUSIBLE_C[0] < degrees / 1e3 < _PLAUSIBLE_C[1]:
                hot.append(degrees / 1e3)
    return max(hot) if hot else None


def _clock_mhz(root: str) -> Optional[float]:
    rest = _read(os.path.join(root, "proc/self/stat")).rpartition(")")[2].split()
    if len(rest) <= _PLACE_OF_CORE:
        return None
    core = rest[_PLACE_OF_CORE]
    kilohertz = _number(_read(os.path.join(root, "sys/devices/system/cpu/cpu%s/cpufreq/scaling_cur_freq" % core)))
    if kilohertz:
        return kilohertz / 1e3
    for block in _read(os.path.join(root, "proc/cpuinfo")).split("\n\n"):
        if re.search(r"^processor\s*:\s*%s$" % core, block, re.MULTILINE):
            told = re.search(r"^cpu MHz\s*:\s*([\d.]+)$", block, re.MULTILINE)
            return _number(told.group(1)) if told else None
    return None


def _names(folder: str) -> List[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:  # no such folder: the machine doesn't tell
        return []


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(1 << 20)
    except OSError:  # not there, or a sensor that is asleep: the machine doesn't tell
        return ""


def _number(text: str) -> Optional[float]:
    try:
        value = float(text)
    except ValueError:  # no number, or nothing at all
        return None
    return value if math.isfinite(value) else None
