"""The runtimes the agent can drive: one file each, of one shape, imported only in a worker that needs it.

``NAME.py`` drives a runtime's providers; ``NAME__PROVIDER.py``, where there is one, drives that provider in its place.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from edgekd.agent.telemetry import keep_silent

if TYPE_CHECKING:
    from edgekd.agent.runtimes.base import Runtime

__all__ = ["open_runtime"]

_OTHERS = ("base", "litert_profiler")  # modules beside the runtimes


def open_runtime(name: str, provider: str, threads: int) -> Runtime:
    """Import a runtime; ``null`` and ``sentinel`` are our own and always there.

    Raises Refusal on an unknown name, ImportError where the runtime isn't installed.
    """
    from edgekd.agent.runtimes.base import Refusal

    there = [found.name for found in pkgutil.iter_modules(__path__)]
    known = [found for found in there if found not in _OTHERS and "__" not in found]
    own = "%s__%s" % (name, provider.replace("-", "_"))
    if own not in there and name not in known:
        raise Refusal("no runtime %s here (known: %s)" % (name, ", ".join(sorted(known))))
    keep_silent()
    module = importlib.import_module("edgekd.agent.runtimes." + (own if own in there else name))
    if provider not in module.PROVIDERS:
        offered = ", ".join("%s/%s" % (name, one) for one in module.PROVIDERS)
        raise Refusal("no backend %s/%s here (known: %s)" % (name, provider, offered))
    opened: Runtime = module.open_runtime(provider, threads)
    return opened
