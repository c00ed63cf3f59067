"""The agent as one file: a zip application named by its content, so that a device keeps each version once.

Modules of other packages (``agent`` of `edgekd.ir.backends.RuntimeSpec` and `BackendSpec`) are added to it as source.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import platformdirs

from edgekd.errors import ConfigurationError, MissingError
from edgekd.ir.backends import BACKENDS, runtimes

__all__ = ["agent_path", "build_agent"]

_EPOCH = (1980, 1, 1, 0, 0, 0)
_START = "import sys\nfrom edgekd.agent.__main__ import main\n\nsys.exit(main())\n"


@cache
def agent_path(folder: Path | None = None) -> Path:
    """The agent's file in the cache (or the given folder), written whole or not at all. Raises OSError."""
    data = build_agent()
    folder = folder or Path(platformdirs.user_cache_dir("edgekd")) / "agent"
    path = folder / f"agent-{hashlib.sha256(data).hexdigest()[:16]}.pyz"
    if not path.exists() or path.read_bytes() != data:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=folder, suffix=".tmp")
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        Path(name).replace(path)
    return path


def build_agent() -> bytes:
    """The zip's bytes, the same on every machine for the same sources."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, text in sorted(_sources().items()):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), text)
    return buffer.getvalue()


def _sources() -> Mapping[str, str]:
    found = {"__main__.py": _START, "edgekd/__init__.py": ""}
    root = resources.files("edgekd.agent")
    for folder, prefix in ((root, "edgekd/agent"), (root / "runtimes", "edgekd/agent/runtimes")):
        for item in folder.iterdir():
            if item.name.endswith(".py"):
                found[f"{prefix}/{item.name}"] = item.read_text(encoding="utf-8")
    modules = [(runtime.name, runtime.name, runtime.agent) for runtime in runtimes().values()]
    modules += [(spec.name, spec.driver, spec.agent) for spec in BACKENDS.values()]
    for name, module, agent in modules:
        if agent:
            place = f"edgekd/agent/runtimes/{module}.py"
            if place in found:
                raise ConfigurationError.one(
                    f"{agent} is the agent's module of `{name}`, and the agent has one of that name",
                    "uninstall the package that brings it, or ask its author to rename it",
                )
            found[place] = _source(name, agent)
    return found


def _source(name: str, agent: str) -> str:
    """Source of the agent's module that another package brings. Raises MissingError where it isn't there as source."""
    try:
        found = find_spec(agent)
    except ImportError as error:
        raise _no_source(name, agent, str(error)) from error
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        raise _no_source(name, agent, "no such module" if found is None else "it is no Python source")
    return Path(found.origin).read_text(encoding="utf-8")


def _no_source(name: str, agent: str, why: str) -> MissingError:
    kind = "backend" if "/" in name else "runtime"
    return MissingError(
        f"the {kind} `{name}` can't be sent to a device: {agent}: {why}",
        "install the package that brings it again, or uninstall it",
    )
