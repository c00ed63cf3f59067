"""Search path of named files: beside the referring file, the working folder, the person's own, the shipped ones.

A name given on one shelf hides the same name on a later one. The last two shelves are the person's `own`: a file there
inherits from files there alone, so that a working folder changes nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from platformdirs import user_config_path

from edgekd.errors import Place, UnknownName, printable

__all__ = ["find", "folders", "is_own", "is_path", "names", "own", "shipped"]

_SUFFIXES = (".yaml", ".yml")


def shipped(kind: str) -> Path:
    """Folder of files that come with edgekd: in an installed wheel, or in a checkout."""
    package = Path(__file__).parent
    installed = package / "_shipped" / kind
    return installed if installed.is_dir() else package.parent / kind


def folders(kind: str, beside: Path | None = None) -> list[Path]:
    """Folders that hold files of a kind (``targets``, ``devices``), in order of precedence."""
    near: list[Path] = []
    if beside is not None:  # a project lies among its targets or above them, a target beside or above its devices
        near = [beside, beside / kind] if kind == "targets" else [beside / kind, beside.parent / kind]
    return list(dict.fromkeys([*_there([*near, Path(kind)]), *own(kind)]))


def own(kind: str) -> list[Path]:
    """Folders of files put there by the person, or with edgekd: their configuration folder, the shipped."""
    return _there([user_config_path("edgekd") / kind, shipped(kind)])


def is_own(kind: str, path: Path) -> bool:
    """Tell whether a file lies on one of the person's `own` shelves."""
    return path.resolve().parent in own(kind)


def names(kind: str, beside: Path | None = None) -> tuple[str, ...]:
    """Names known, sorted. Files directly beside a project are not listed: they may be anything."""
    listed = [folder for folder in folders(kind, beside) if beside is None or folder != beside.resolve()]
    return tuple(sorted({file.stem for folder in listed for file in _files(folder)}))


def is_path(name: str) -> bool:
    """Tell whether a name is a path of a file, and not looked for on any shelf."""
    return name.isprintable() and ("/" in name or name.endswith(_SUFFIXES))


def find(
    kind: str,
    name: str,
    beside: Path | None = None,
    place: Place = Place(),
    without: Path | None = None,
    shelves: Sequence[Path] | None = None,
) -> Path:
    """File of a name or a path, a name on ``shelves`` (default: `folders`). Raises UnknownName.

    ``without`` is skipped: a file does not inherit from itself.
    """
    word = kind.removesuffix("s")
    if is_path(name):
        return (beside or Path()) / Path(name).expanduser()
    for folder in folders(kind, beside) if shelves is None else shelves:
        for suffix in _SUFFIXES:
            path = folder / f"{name}{suffix}"
            if name.isprintable() and len(name) < 200 and path.is_file() and path.resolve() != without:
                return path
    raise UnknownName(word, printable(name)[:80], names(kind, beside), place)


def _there(every: Iterable[Path]) -> list[Path]:
    return list(dict.fromkeys(folder.resolve() for folder in every if folder.is_dir()))


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.iterdir()) if file.suffix in _SUFFIXES)
