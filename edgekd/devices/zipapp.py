"""The agent as one file: a zip application named by its content, so that a device keeps each version once."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path

import platformdirs

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
    return found
