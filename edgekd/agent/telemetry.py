"""Runtimes that tell their vendor of their use are kept from it: call before a runtime is imported.

OpenVINO's import starts a child process that sends an event to a web analytics service. Nothing here goes to the
network unasked, and a process that is measured has no other beside it.
"""

from __future__ import annotations

import sys

__all__ = ["keep_silent"]


def keep_silent() -> None:
    """Make ``openvino_telemetry`` a package that is not installed; OpenVINO then uses a stub of its own."""
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # how an import is told not to look
