"""Resident memory as the kernel tells it. ``ru_maxrss`` is never read: it survives exec and shows the parent's peak."""

from __future__ import annotations

import resource
from typing import Dict

__all__ = ["limit_data", "reset_peak", "status_bytes"]


def status_bytes() -> Dict[str, int]:
    """The sizes of /proc/self/status (VmRSS, VmHWM, VmData, ...) in bytes; empty where there's none."""
    sizes: Dict[str, int] = {}
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as stream:
            for line in stream:
                name, _, value = line.partition(":")
                words = value.split()
                if len(words) == 2 and words[1] == "kB":
                    sizes[name] = int(words[0]) * 1024
    except OSError:
        pass
    return sizes


def reset_peak() -> bool:
    """Start VmHWM anew from here; False where the kernel doesn't allow it, so that an older peak may remain."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as stream:
            stream.write("5")
    except OSError:
        return False
    return True


def limit_data(allowed_bytes: int) -> None:
    """Let this process take that much beyond what it has now.

    Called after the runtime's import: a limit set earlier fails at whatever comes first and looks like a broken
    installation.
    """
    limit = status_bytes().get("VmData", 0) + allowed_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
