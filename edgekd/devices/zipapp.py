"""The agent as one file: a zip application named by its content, so that a device keeps each version once.

Runtimes of other packages (`edgekd.ir.backends.RuntimeSpec.agent`) are added to it as source.
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
from edgekd.ir.backends import RuntimeSpec, runtimes

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
    for runtime in runtimes().values():
        if runtime.agent:
            place = f"edgekd/agent/runtimes/{runtime.name}.py"
            if place in found:
                raise ConfigurationError.one(
                    f"{runtime.agent} is the agent's module of `{runtime.name}`, and the agent has one of that name",
                    "uninstall the package that brings it, or ask its author to rename the runtime",
                )
            found[place] = _source(runtime)
    return found


def _source(runtime: RuntimeSpec) -> str:
    """The agent's module of another package's runtime. Raises MissingError where it isn't there as source."""
    try:
        found = find_spec(runtime.agent)
    except ImportError as error:
        raise _no_source(runtime, str(error)) from error
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        raise _no_source(runtime, "no such module" if found is None else "it is no Python source")
    return Path(found.origin).read_text(encoding="utf-8")


def _no_source(runtime: RuntimeSpec, why: str) -> MissingError:
    return MissingError(
        f"the runtime `{runtime.name}` can't be sent to a device: {runtime.agent}: {why}",
        "install the package that brings it again, or uninstall it",
    )
