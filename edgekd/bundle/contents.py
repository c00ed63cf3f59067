"""Contents of a bundle's folder, held against what its certificate lists: every file once, by hash, and nothing else.

The certificate lists all other files by their SHA-256, so the digest of ``certificate.json`` stands for the whole
bundle: who was told it in another way (a message, a release page) can tell a forged bundle, certificate included, from
the one that was exported. The folder may be a stranger's: nothing is opened but regular files that lie in it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from edgekd.artefacts import Artefact
from edgekd.bundle.preprocess import PREPROCESS
from edgekd.bundle.samples import SAMPLES
from edgekd.errors import printable
from edgekd.records import Digest, digest_file
from edgekd.store.certificate import CERTIFICATE, BundledFile, Certificate

__all__ = ["Contents", "bundle_digest", "contents_of"]

_ONCE = {"model": "", "preprocess": PREPROCESS, "samples": SAMPLES, "card": "README.md", "example": "example.py"}
"""Roles that one file has, and its name; a model's name is the certificate's to say."""
_NAMED = 4


class Contents(NamedTuple):
    """``problems`` in words, none where the folder is what the certificate lists; ``hidden`` files are not covered."""

    sound: int  # files that are as listed
    problems: tuple[str, ...]
    hidden: tuple[str, ...]  # of version control and the like: their names begin with a dot


def bundle_digest(folder: Path) -> Digest:
    """SHA-256 of the certificate's file, and so of everything that it lists. Raises OSError."""
    return digest_file(folder / CERTIFICATE)


def contents_of(folder: Path, certificate: Certificate) -> Contents:
    """Compare. Raises OSError, and ConfigurationError where an ONNX model names weights that no bundle has."""
    there = _files_in(folder)
    hidden = tuple(sorted(name for name in there if name.startswith(".")))
    listed = Counter(file.name for file in certificate.files)
    differ = [file.name for file in certificate.files if not _same(there.get(file.name), file)]
    found = {
        "differ": differ,
        "not listed": sorted(set(there) - {CERTIFICATE, *listed, *hidden}),
        "listed twice": [name for name, count in listed.items() if count > 1],
    }
    problems = [f"{what}: {_few(names)}" for what, names in found.items() if names]
    problems += _roles(certificate)
    if not problems:
        hashed = {there[name].resolve() for name in listed}
        needed = [path.name for path in Artefact.of(there[certificate.model]).files if path.resolve() not in hashed]
        problems += [f"without a hash: {_few(needed)}"] if needed else []
    return Contents(len(certificate.files) - len(differ), tuple(problems), hidden)


def _files_in(folder: Path) -> Mapping[str, Path]:
    """Names of all that is no folder, links to folders included, relative to the folder; of what is hidden, the
    first part."""
    found = {}
    for place, folders, names in os.walk(folder, onerror=_raised):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in [*names, *links]:
            path = Path(place) / name
            found[path.relative_to(folder).as_posix()] = path
        if Path(place) == folder:
            found.update({name: folder / name for name in folders if name.startswith(".")})
            folders[:] = [name for name in folders if not name.startswith(".")]
    return found


def _raised(error: OSError) -> None:
    raise error


def _same(path: Path | None, file: BundledFile) -> bool:
    if path is None or path.is_symlink() or not path.is_file():
        return False
    return path.stat().st_size == file.size_bytes and digest_file(path) == file.sha256


def _roles(certificate: Certificate) -> list[str]:
    """Each of the files that a bundle has is listed once, in its role and under its name."""
    problems = []
    for role, name in _ONCE.items():
        names = [file.name for file in certificate.files if file.role == role]
        if names != [name or certificate.model]:
            problems.append(f"role {role}: {_few(names) or 'no file'}, not {printable(name or certificate.model)}")
    return problems


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return printable(", ".join(names[:_NAMED]) + more)
