"""Temperature, clock, swap and throttling at one moment, read by the measured process: its own core's clock counts.

The temperature is the hottest thermal zone whose type names the processor; a battery's or a radio's says nothing of it.
The clock is the core's as cpufreq tells, or else as /proc/cpuinfo does (in a virtual machine a constant). Pages and
throttlings (x86) are counted from the start of the machine; a Raspberry Pi's flags are its firmware's bits.
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


def conditions(root: str = "/") -> Optional[Dict[str, float]]:
    """Conditions of the machine (`_CONDITIONS`) by name; None where it reports none. ``root`` holds /proc and /sys."""
    found = ((name, look(root)) for name, look in _CONDITIONS.items())
    return {name: value for name, value in found if value is not None} or None


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
            clock = re.search(r"^cpu MHz\s*:\s*([\d.]+)$", block, re.MULTILINE)
            return _number(clock.group(1)) if clock else None
    return None


def _swapped_pages(root: str) -> Optional[float]:
    found = re.findall(r"^pswp(?:in|out) (\d+)$", _read(os.path.join(root, "proc/vmstat")), re.MULTILINE)
    return sum(map(int, found)) if found else None


def _throttle_count(root: str) -> Optional[float]:
    folder = os.path.join(root, "sys/devices/system/cpu")
    cores = [name for name in _names(folder) if re.match(r"cpu\d+$", name)]
    found = [_read(os.path.join(folder, core, "thermal_throttle/core_throttle_count")).strip() for core in cores]
    return sum(int(count) for count in found if count.isdigit()) if any(found) else None


def _throttle_flags(root: str) -> Optional[float]:
    text = _read(os.path.join(root, "sys/devices/platform/soc/soc:firmware/get_throttled")).strip()
    return int(text, 16) if re.match(r"(0x)?[0-9a-fA-F]+$", text) else None


_CONDITIONS = {
    "temperature_c": _temperature_c,
    "clock_mhz": _clock_mhz,
    "swapped_pages": _swapped_pages,
    "throttle_count": _throttle_count,
    "throttle_flags": _throttle_flags,
}


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
