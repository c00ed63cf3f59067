"""The runtimes the agent can drive: one file each, of one shape, imported only in a worker that needs it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from edgekd.agent.telemetry import keep_silent

if TYPE_CHECKING:
    from edgekd.agent.runtimes.base import Runtime

__all__ = ["RUNTIMES", "open_runtime"]

RUNTIMES = {
    "litert": ("xnnpack", "builtin"),
    "onnxruntime": ("cpu",),
    "openvino": ("cpu",),
    "null": ("none",),
    "sentinel": ("none",),
}
"""Each runtime and its providers. ``null`` and ``sentinel`` are our own and always there."""


def open_runtime(name: str, provider: str, threads: int) -> Runtime:
    """Import a runtime. Raises Refusal on an unknown name, ImportError where it isn't installed."""
    from edgekd.agent.runtimes.base import Refusal

    if provider not in RUNTIMES.get(name, ()):
        known = ", ".join("%s/%s" % (known, one) for known, several in RUNTIMES.items() for one in several)
        raise Refusal("no backend %s/%s here (known: %s)" % (name, provider, known))
    keep_silent()
    module = importlib.import_module("edgekd.agent.runtimes." + name)
    opened: Runtime = module.open_runtime(provider, threads)
    return opened
