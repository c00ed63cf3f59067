"""Diagnostic models: they do nothing, or end in each of the ways a model can end, on purpose.

They show that a device and everything between here and there works, before any real model is to blame.
"""

from __future__ import annotations

from pathlib import Path

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Job
from edgekd.records import digest_file

__all__ = ["null_job"]


def null_job(folder: Path, behaviour: str = "") -> Job:
    """A job on the ``null`` runtime: ``behaviour`` is empty, ``spin=US``, ``crash``, ``hang``, ``alloc=BYTES``,
    ``stream=BYTES`` or ``refuse``. Its file is written into ``folder``. Raises OSError.
    """
    text = f"null:{behaviour}" if behaviour else "null"
    path = folder / f"{text.replace(':', '-').replace('=', '-')}.null"
    path.write_text(text, encoding="ascii")
    artefact = Artefact(path=path, format=Format.ONNX, sha256=digest_file(path), size_bytes=path.stat().st_size)
    return Job(artefact=artefact, backend=Backend(runtime="null", provider="none"))
