"""Inheritance of targets and devices: ``extends:`` takes the fields of another file.

A target's mappings are merged field by field; anything else is replaced, and so is every field of a device: a fact
comes with its source, a connection with its options. A field set to ``null`` removes the inherited value. Every value
keeps the file and line it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from edgekd import search_path
from edgekd.documents import Document, Where, placed, plain, read_document
from edgekd.errors import ConfigurationError, Place, Problem

__all__ = ["DEVICES", "TARGETS", "Kind", "Resolved", "resolve"]

_DEEPEST = 10


class Kind(NamedTuple):
    """Kind of files that extend each other."""

    shelf: str
    word: str
    schema: str
    deep: bool  # whether mappings are merged


TARGETS = Kind("targets", "target", "edgekd.target/1", deep=True)
DEVICES = Kind("devices", "device", "edgekd.device/1", deep=False)


@dataclass(frozen=True)
class Resolved:
    """Data of a file after inheritance. ``origin`` has the file of every value."""

    path: Path
    data: Mapping[str, Any]
    origin: Mapping[tuple[str | int, ...], Document]

    def place(self, where: Where) -> Place:
        """Position of the value at a path, or of the nearest enclosing one."""
        for length in range(len(where), 0, -1):
            document = self.origin.get(tuple(where[:length]))
            if document is not None:
                return document.place(where)
        return Place(str(self.path))


def resolve(path: Path, kind: Kind, chain: tuple[Path, ...] = ()) -> Resolved:
    """Read a file and the files it extends. Raises ConfigurationError, also on a cycle."""
    document = read_document(path)
    data = plain(document.data)
    problems = list(_header(document, data, kind))
    parent = data.pop("extends", None)
    data.pop("schema", None)
    here = (*chain, path.resolve())
    inherited: Resolved | None = None
    if parent is not None and not isinstance(parent, str):
        problems.append(Problem(f"a {kind.word}'s name or path is expected", "", document.place(["extends"])))
    elif parent is not None:
        try:
            inherited = _parent(document, parent, kind, here)
        except ConfigurationError as error:
            problems.extend(placed(error, document, ["extends"]))
    if problems:
        raise ConfigurationError(problems)
    origin = dict(inherited.origin) if inherited else {}
    merged = _merge(dict(inherited.data) if inherited else {}, data, document, origin, (), kind.deep)
    return Resolved(path, merged, origin)


def _header(document: Document, data: Mapping[str, Any], kind: Kind) -> list[Problem]:
    problems = []
    if data.get("schema") != kind.schema:
        found = f"found `{data['schema']}`" if "schema" in data else "the field `schema` is missing"
        remedy = f"the first line of a {kind.word} is: schema: {kind.schema}"
        problems.append(Problem(found, remedy, document.place(["schema"])))
    if "name" in data:
        problems.append(Problem(f"a {kind.word} is named after its file", "remove this line", document.place(["name"])))
    return problems


def _parent(document: Document, name: str, kind: Kind, chain: tuple[Path, ...]) -> Resolved:
    place = document.place(["extends"])
    own = search_path.own(kind.shelf) if search_path.is_own(kind.shelf, document.path) else None
    path = search_path.find(kind.shelf, name, document.path.parent, place, without=chain[-1], shelves=own)
    if path.resolve() in chain:
        circle = " -> ".join(step.stem for step in (*chain[chain.index(path.resolve()) :], path.resolve()))
        raise ConfigurationError.one(f"{kind.shelf} extend each other in a circle: {circle}", "break it here", place)
    if len(chain) > _DEEPEST:
        raise ConfigurationError.one(f"more than {_DEEPEST} {kind.shelf} extend each other", "shorten the chain", place)
    return resolve(path, kind, chain)


def _merge(
    base: dict[str, Any],
    over: Mapping[str, Any],
    document: Document,
    origin: dict[Any, Document],
    at: tuple[str, ...],
    deep: bool,
) -> dict[str, Any]:
    for key, value in over.items():
        where = (*at, key)
        inside = base.get(key)
        if deep and isinstance(value, dict) and isinstance(inside, dict):
            base[key] = _merge(dict(inside), value, document, origin, where, deep)
            origin.setdefault(where, document)
        else:
            for stale in [known for known in origin if known[: len(where)] == where]:
                del origin[stale]
            base[key] = value
            _remember(value, document, origin, where)
    return base


def _remember(value: Any, document: Document, origin: dict[Any, Document], at: tuple[str | int, ...]) -> None:
    origin[at] = document
    if isinstance(value, dict):
        for key, inner in value.items():
            _remember(inner, document, origin, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _remember(inner, document, origin, (*at, index))
