"""Project given other than by its file alone: as a mapping in Python, or with fields replaced for one run.

A mapping is what the file would hold; its relative paths are relative to the working folder. A replaced field is named
by its path, as messages name it: ``search.budget``, ``recipe[0].distill.epochs``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.documents import Document, Where, dotted, parsed, plain, read_document, require_sound
from edgekd.errors import ConfigurationError, Place, UsageError

__all__ = ["document_of", "parsed_change"]

_FIELD = re.compile(r"[^.\[\]]+(\[\d+\])*(\.[^.\[\]]+(\[\d+\])*)*")
_STEP = re.compile(r"[^.\[\]]+")
_GIVEN = "<mapping>"  # where messages place a project that is no file


def document_of(
    project: str | os.PathLike[str] | Mapping[str, Any], changes: Mapping[str, Any], file: Path | None = None
) -> Document:
    """Read a project file, or take a mapping in its place, and replace fields of it.

    ``changes`` is by the path of a field; a value of None is YAML's ``null``. ``file``: of a mapping, the project file
    it came from. Raises ConfigurationError on a file or mapping that isn't sound, UsageError on a path that leads
    nowhere.
    """
    if isinstance(project, Mapping):
        document = Document(file or Path(_GIVEN), _written(project, ()), (), whole=False)
        require_sound(document)
    else:
        document = read_document(Path(project))
    if not changes:
        return document
    changed = [_replace(document.data, name, value) for name, value in changes.items()]
    document = document._replace(changed=tuple(changed), whole=False)
    require_sound(document)
    return document


def parsed_change(text: str) -> tuple[str, Any]:
    """Parse ``FIELD=VALUE``; the value is YAML. Raises UsageError, and ConfigurationError where it isn't YAML."""
    name, equals, value = text.partition("=")
    if not equals or not _FIELD.fullmatch(name):
        raise UsageError(f"--set {text}: FIELD=VALUE is expected", "for example --set search.budget='5 min'")
    return name, plain(parsed(value, f"--set {name}"))


def _replace(data: Any, name: str, value: Any) -> tuple[str | int, ...]:
    """Replace a field, and make the mappings around it that are missing. Return its path."""
    if not _FIELD.fullmatch(name):
        raise UsageError(f"`{name}` is no field's path", "for example search.budget, or recipe[0].distill.epochs")
    where = tuple(int(step) if step.isdecimal() else step for step in _STEP.findall(name))
    node = data
    for index, part in enumerate(where):
        _require(node, part, where[:index], name)
        if index == len(where) - 1:
            node[part] = _written(value, where)
        else:
            inside = node.get(part) if isinstance(node, dict) else node[part]
            if inside is None and isinstance(where[index + 1], str):
                inside = node[part] = {}
            node = inside
    return where


def _require(node: Any, part: str | int, at: Where, name: str) -> None:
    """Check that a node, at a path, can have this part. Raises UsageError."""
    if isinstance(part, str) and isinstance(node, dict):
        return
    if isinstance(part, int) and isinstance(node, list) and part < len(node):
        return
    if isinstance(node, list):
        found, remedy = f"a list of {len(node)}", f"its first would be {dotted((*at, 0))}"
    elif isinstance(node, dict):
        found, remedy = "no list", f"its fields: {', '.join(map(str, node))}"
    else:
        found, remedy = "not there" if node is None else f"`{node}`", f"set {dotted(at)} as a whole"
    raise UsageError(f"the change of {name}: {dotted(at) or 'the project'} is {found}", remedy)


def _written(value: Any, where: tuple[str | int, ...]) -> Any:
    """Convert a Python value to what a YAML file holds. Raises ConfigurationError on any other."""
    if isinstance(value, Mapping):
        return {key: _written(inside, (*where, key)) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [_written(inside, (*where, index)) for index, inside in enumerate(value)]
    if isinstance(value, Enum):
        return _written(value.value, where)
    if isinstance(value, np.generic):
        return _written(value.item(), where)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise ConfigurationError.one(
        f"found a value of type {type(value).__name__}", "give text, numbers, lists and mappings, as YAML has them",
        Place(_GIVEN, field=dotted(where)),
    )  # fmt: skip
