"""YAML files a person writes, read into records with every problem placed at its line and column.

Reading runs no code: plain YAML data only, no tags, no anchors that multiply (depth and size are bounded).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from edgekd.errors import ConfigurationError, Place, Problem, nearest_name
from edgekd.records import Record

__all__ = ["Document", "Where", "problems_of", "read_document", "validate"]

RecordT = TypeVar("RecordT", bound=Record)
Where = Sequence[str | int]
"""A path into a document: ``("recipe", 0, "distill")``."""

_LARGEST_BYTES = 1_000_000
_DEEPEST = 40


class Document(NamedTuple):
    """A file's data with the position of every key. ``lines`` are its source lines."""

    path: Path
    data: Any
    lines: tuple[str, ...]

    def place(self, where: Where) -> Place:
        """Where in the file a path stands; the nearest enclosing position when it isn't written out."""
        node, line, column = self.data, 0, 0
        for part in where:
            position = _position(node, part)
            if position is None:
                break
            line, column = position[0] + 1, position[1] + 1
            node = node[part]
        excerpt = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        if len(excerpt) > 200:
            excerpt, column = "", 0
        return Place(str(self.path), line, column, dotted(where), excerpt)


def dotted(where: Where) -> str:
    """``recipe[0].distill``."""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def read_document(path: Path) -> Document:
    """Read one YAML file. Raises ConfigurationError on a missing, unreadable, oversized or malformed one."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        near = nearest_name(path.name, siblings)
        hint = f"did you mean `{near}`?" if near else "write one with: edgekd init"
        raise ConfigurationError.one("no such file", hint, Place(str(path))) from None
    except OSError as error:
        raise ConfigurationError.one(f"can't be read: {error.strerror}", place=Place(str(path))) from error
    if len(raw) > _LARGEST_BYTES:
        raise ConfigurationError.one(
            f"{len(raw)} bytes is too large for a file a person writes (limit {_LARGEST_BYTES})",
            place=Place(str(path)),
        )
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError.one(f"is not UTF-8 text: {error.reason}", place=Place(str(path))) from None
    try:
        _refuse_aliases(text)
        data = YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(str(path), mark.line + 1, mark.column + 1) if mark else Place(str(path))
        raise ConfigurationError.one(f"is not valid YAML: {error.problem or error.context}", place=place) from None
    except (
        YAMLError,
        ValueError,
        RecursionError,
        OverflowError,
        TypeError,
        AttributeError,
        KeyError,
        IndexError,
    ) as error:
        # the parser raises all of these on hostile text; each is the file's fault
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigurationError.one(f"is not valid YAML: {reason}", place=Place(str(path))) from None
    if not isinstance(data, CommentedMap):
        raise ConfigurationError.one("a mapping of fields is expected here", place=Place(str(path), 1))
    return Document(path, data, tuple(text.splitlines()))


def validate(document: Document, model: type[RecordT], data: Any = None) -> RecordT:
    """Read a document into a record. Raises ConfigurationError with every problem at its place."""
    try:
        return model.model_validate(plain(document.data if data is None else data))
    except ValidationError as error:
        raise ConfigurationError(problems_of(error, document, model)) from None


def problems_of(error: ValidationError, document: Document, model: type[BaseModel], at: Where = ()) -> list[Problem]:
    """Each pydantic error as a Problem in the person's words. ``at`` is where the model's data stands."""
    problems = []
    for item in error.errors(include_url=False):
        where = (*at, *(part for part in item["loc"] if _is_written(document.data, part)))
        message, remedy = _words(dict(item), model)
        problems.append(Problem(message, remedy, document.place(where)))
    return problems


def plain(node: Any, depth: int = 0) -> Any:
    """Round-trip YAML nodes as plain dicts, lists and scalars. Raises ConfigurationError on absurd depth."""
    if depth > _DEEPEST:
        raise ConfigurationError.one(f"nested deeper than {_DEEPEST} levels")
    if isinstance(node, dict):
        return {str(key): plain(value, depth + 1) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(value, depth + 1) for value in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node if node is None else str(node)


def _refuse_aliases(text: str) -> None:
    for token in YAML(typ="safe", pure=True).scan(text):
        if type(token).__name__ in ("AliasToken", "TagToken"):
            mark = token.start_mark
            raise MarkedYAMLError(problem="aliases (*name) and tags (!name) are not used here", problem_mark=mark)


def _position(node: Any, part: str | int) -> tuple[int, int] | None:
    if isinstance(node, CommentedMap) and part in node:
        return tuple(node.lc.key(part))
    if isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
        return tuple(node.lc.item(part))
    return None


def _is_written(_data: Any, part: str | int) -> bool:
    # pydantic adds the names of validators and union members to a location; none of them is in the file
    return isinstance(part, int) or not any(mark in part for mark in ("[", "(", "-before", "-after"))


def _words(item: dict[str, Any], model: type[BaseModel]) -> tuple[str, str]:
    kind, location = item["type"], item["loc"]
    if kind == "extra_forbidden":
        fields = _fields_at(model, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), fields, n=1, cutoff=0.5)
        listing = f"(fields here: {', '.join(fields)})" if fields else ""
        return "no such field", "  ".join(filter(None, [f"did you mean `{near[0]}`?" if near else "", listing]))
    if kind == "missing":
        return f"the field `{location[-1]}` is missing", ""
    found = item.get("input")
    shown = f"found `{found}`: " if isinstance(found, (str, int, float, bool)) and kind != "quantity" else ""
    return f"{shown}{item['msg'][:1].lower()}{item['msg'][1:]}"[:400], ""


def _fields_at(model: type[BaseModel], location: Where) -> list[str]:
    """Field names of the record a location leads to, as far as annotations tell."""
    current: Any = model
    for part in location:
        if isinstance(part, int):
            current = _record_in(current)
            continue
        if not (isinstance(current, type) and issubclass(current, BaseModel)) or part not in current.model_fields:
            break
        current = current.model_fields[part].annotation
    current = _record_in(current)
    return list(current.model_fields) if current is not None else []


def _record_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _record_in(argument)
        if found is not None:
            return found
    return None
