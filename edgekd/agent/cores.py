"""Cores that a phone's or a board's work runs on: its fast ones, its slow ones, or some by number."""

from __future__ import annotations

import os
import re
from typing import Dict, List

__all__ = ["CoresRefused", "bind", "chosen"]

_LISTED = re.compile(r"[0-9]{1,4}(,[0-9]{1,4})*")


class CoresRefused(Exception):
    """Cores that aren't there, or can't be told apart."""


def bind(which: str) -> str:
    """Bind this process and all it starts, and say to what. Raises CoresRefused."""
    cores = chosen(which, sorted(os.sched_getaffinity(0)), "/")
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:  # a phone switches its fast cores off
        raise CoresRefused("cores %s can't be used: %s" % (",".join(map(str, cores)), error.strerror)) from None
    listed = ",".join(map(str, cores))
    return listed if which == listed else "%s (%s)" % (listed, which)


def chosen(which: str, allowed: List[int], root: str) -> List[int]:
    """Cores that are meant of the allowed ones: ``fast``, ``slow``, or numbers with commas. Raises CoresRefused."""
    if which not in ("fast", "slow"):
        if not _LISTED.fullmatch(which):
            raise CoresRefused("cores %r: fast, slow or numbers expected" % which)
        wanted = sorted({int(number) for number in which.split(",")})
        absent = [core for core in wanted if core not in allowed]
        if absent:
            raise CoresRefused("core %d: there are %s" % (absent[0], ",".join(map(str, allowed))))
        return wanted
    speeds = {core: _speed(core, root) for core in allowed}
    if 0 in speeds.values():
        raise CoresRefused("%s cores: this system does not tell how fast its cores are" % which)
    if len(set(speeds.values())) == 1:
        raise CoresRefused("%s cores: all of them are alike here" % which)
    return _those(speeds, max(speeds.values()) if which == "fast" else min(speeds.values()))


def _those(speeds: Dict[int, int], speed: int) -> List[int]:
    return [core for core, found in speeds.items() if found == speed]


def _speed(core: int, root: str) -> int:
    """The kernel's own measure of what a core can do, or else its highest clock; 0 where neither is told."""
    folder = os.path.join(root, "sys/devices/system/cpu/cpu%d" % core)
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        try:
            with open(os.path.join(folder, name), encoding="ascii") as stream:
                text = stream.read(100).strip()
        except OSError:
            continue  # not told here
        if text.isdigit() and int(text):
            return int(text)
    return 0
