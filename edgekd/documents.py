"""YAML files of a person, read into records with every problem placed at its line and column.

Reading runs no code: plain YAML data only, no tags, no aliases (they multiply), bounded in size and depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from edgekd.errors import ConfigurationError, Place, Problem, nearest_name, printable
from edgekd.records import Record

__all__ = [
    "Document",
    "Sourced",
    "Where",
    "dotted",
    "parsed",
    "placed",
    "plain",
    "problems_of",
    "read_document",
    "require_sound",
    "validate",
]

RecordT = TypeVar("RecordT", bound=Record)
Where = Sequence[str | int]
"""Path into a document: ``("recipe", 0, "distill")``."""

_LARGEST_BYTES = 100_000
_DEEPEST = 40
_LARGEST_INT = 2**63
_OPENING = ("BlockMappingStartToken", "BlockSequenceStartToken", "FlowMappingStartToken", "FlowSequenceStartToken")
_SLIPS = (  # the parser's message, ours, the remedy
    ("'\\t'", "a tab", "indent with spaces"),
    (
        "expected <block end>",
        "this line is not in line with those around it",
        "begin it in the column of the lines that it belongs to",
    ),
    ("mapping values are not allowed", "a second `:`", "put the value in quotes, or begin a new line"),
    ("could not find expected ':'", "a field without its `:`", "write name: value"),
)
_CLOSING = ("BlockEndToken", "FlowMappingEndToken", "FlowSequenceEndToken")


class Sourced(Protocol):
    """Data with the source position of each of its values."""

    @property
    def data(self) -> Any:
        """Plain or round-trip data."""
        ...

    def place(self, where: Where) -> Place:
        """Position of a value, or of the nearest one around it."""
        ...


class Document(NamedTuple):
    """Data of a file with the position of every key. ``lines`` are its source lines.

    ``changed`` are the paths of values that were replaced, ``whole`` is True where the file holds all of the data.
    """

    path: Path
    data: Any
    lines: tuple[str, ...]
    changed: tuple[tuple[str | int, ...], ...] = ()
    whole: bool = True

    def place(self, where: Where) -> Place:
        """Position of a path in the file; the nearest enclosing position when it isn't written out."""
        if any(tuple(where[: len(path)]) == path for path in self.changed):
            return Place("change", field=dotted(where))
        node, line, column, width = self.data, 0, 0, 1
        for part in where:
            position = _position(node, part)
            if position is None:
                break
            line, column = position[0] + 1, position[1] + 1
            width = len(part) if isinstance(part, str) else 1
            node = node[part]
        return Place(_shown(self.path), line, column, dotted(where), _excerpt(self.lines, line), width)


def dotted(where: Where) -> str:
    """Format a path: ``recipe[0].distill``."""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else printable(f".{part}" if text else part)
    return text


def _shown(path: Path) -> str:
    """Path relative to the working folder where it lies below it, so that all files of one answer look alike."""
    folder = Path.cwd()
    return str(path.relative_to(folder)) if path.is_absolute() and path.is_relative_to(folder) else str(path)


def _excerpt(lines: Sequence[str], line: int) -> str:
    """Source line to show, or nothing where a terminal can't show it."""
    text = lines[line - 1] if 0 < line <= len(lines) else ""
    return text if len(text) <= 200 and text.isprintable() else ""


def read_document(path: Path) -> Document:
    """Read one YAML file. Raises ConfigurationError on a missing, unreadable, oversized or malformed one."""
    text = _read_text(path)
    data = parsed(text, _shown(path))
    if data is None:
        raise ConfigurationError.one(
            "is empty", "edgekd init writes a project and its target, edgekd targets new a target", Place(_shown(path))
        )
    if not isinstance(data, CommentedMap):
        raise ConfigurationError.one("a mapping of fields is expected here", place=Place(_shown(path), 1))
    document = Document(path, data, tuple(text.split("\n")))
    require_sound(document)
    return document


def require_sound(document: Document) -> None:
    """Check that JSON can hold every value. Raises ConfigurationError."""
    problems = list(_oddities(document, document.data, ()))
    if problems:
        raise ConfigurationError(problems)


def parsed(text: str, file: str) -> Any:
    """Parse YAML; ``file`` is where it came from, for messages. Raises ConfigurationError."""
    try:
        _refuse_what_multiplies(text)
        return YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        place = Place(file, line, column, excerpt=_excerpt(text.replace("\t", " ").split("\n"), line))
        reason = str(error.problem or error.context).partition(" with value ")[0]
        said, remedy = next(((said, todo) for key, said, todo in _SLIPS if key in reason), (printable(reason), ""))
        raise ConfigurationError.one(f"is not valid YAML: {said}", remedy, place) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigurationError.one(
            f"is not valid YAML: the character {str(error.character)[:20]!r} can't stand in a text file",
            place=Place(file, line),
        ) from None
    except (
        YAMLError,
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        NotImplementedError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        # the parser raises all of these on hostile text; each is the file's fault
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigurationError.one(f"is not valid YAML: {printable(reason)}", place=Place(file)) from None


def validate(document: Document, model: type[RecordT], data: Any = None) -> RecordT:
    """Read a document into a record. Raises ConfigurationError with every problem at its place."""
    try:
        return model.model_validate(plain(document.data if data is None else data))
    except ValidationError as error:
        raise ConfigurationError(problems_of(error, document, model)) from None


def problems_of(
    error: ValidationError,
    document: Sourced,
    model: type[BaseModel],
    at: Where = (),
    inner: Callable[[Where], type[BaseModel] | None] = lambda _where: None,
) -> list[Problem]:
    """Convert pydantic's errors to Problems in edgekd's terms. ``at`` is the path of the model's data.

    ``inner`` gives the record read at a path that annotations don't show: a plugin's options inside another's.
    """
    found: dict[Where, list[Problem]] = {}
    start = _node_at(document.data, at)
    items = error.errors(include_url=False)
    for item in items:
        if item["type"] == "too_short" and any(_inside(other["loc"], item["loc"]) for other in items):
            continue  # pydantic reports refused values as missing too
        cause = (item.get("ctx") or {}).get("error")
        where = (*at, *_written(start, item["loc"], item["type"] == "missing"))
        if isinstance(cause, ConfigurationError):
            found.setdefault((*where, len(found)), []).extend(placed(cause, document, where))
        else:
            record = inner(where[:-1]) if item["type"] == "extra_forbidden" else None
            if record is not None:
                message, remedy = _words({**item, "loc": item["loc"][-1:]}, record)
            else:
                message, remedy = _words(dict(item), model)
            found.setdefault(where, []).append(Problem(message, remedy, document.place(where)))
    return [_either(problems) for problems in found.values()]


def _inside(location: Where, around: Where) -> bool:
    return len(location) > len(around) and location[: len(around)] == around


def placed(error: ConfigurationError, document: Sourced, where: Where) -> list[Problem]:
    """Problems of an error, those without a place of their own put at ``where``."""
    return [
        problem if problem.place.file else Problem(problem.message, problem.remedy, document.place(where))
        for problem in error.problems
    ]


def plain(node: Any) -> Any:
    """Convert round-trip YAML nodes to plain dicts, lists and scalars."""
    if isinstance(node, dict):
        return {str(key): plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(value) for value in node]
    if node is None:
        return None
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return str(node)


def _read_text(path: Path) -> str:
    try:
        if path.is_dir():
            raise ConfigurationError.one("is a folder; a file is expected", place=Place(str(path)))
        if path.exists() and not path.is_file():
            raise ConfigurationError.one("is a pipe or a device; a file is expected", place=Place(str(path)))
        with path.open("rb") as stream:
            raw = stream.read(_LARGEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        siblings = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        near = nearest_name(path.name, siblings)
        hint = f"did you mean `{near}`?" if near else "write one with: edgekd init"
        raise ConfigurationError.one("no such file", hint, Place(str(path))) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError.one(f"can't be read: {reason}", place=Place(printable(str(path)))) from error
    if len(raw) > _LARGEST_BYTES:
        raise ConfigurationError.one(
            f"is too large for a file a person writes (limit {_LARGEST_BYTES} bytes)", place=Place(str(path))
        )
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigurationError.one(f"is not UTF-8 text: {error.reason}", place=Place(str(path), line)) from None


def _refuse_what_multiplies(text: str) -> None:
    """Refuse aliases, tags, merge keys and absurd depth while scanning, before anything is built."""
    depth = 0
    for token in YAML(typ="safe", pure=True).scan(text):
        kind = type(token).__name__
        depth += (kind in _OPENING) - (kind in _CLOSING)
        if kind in ("AliasToken", "AnchorToken", "TagToken"):
            reason = "aliases (*name), anchors (&name) and tags (!name) are not used here"
        elif kind == "ScalarToken" and token.plain and token.value == "<<":
            reason = "merge keys (<<) are not used here; a target inherits with `extends:`"
        elif kind == "DirectiveToken":
            reason = "directives (%) are not used here"
        elif depth > _DEEPEST:
            reason = f"nested deeper than {_DEEPEST} levels"
        else:
            continue
        raise MarkedYAMLError(problem=reason, problem_mark=token.start_mark)


def _oddities(document: Document, node: Any, at: Where) -> Iterator[Problem]:
    """Problems of values that YAML can write and JSON can't hold, or that no field accepts."""
    if isinstance(node, dict):
        for key, value in node.items():
            if isinstance(key, str):
                yield from _oddities(document, value, (*at, key))
            else:
                shown = printable(str(key))[:40]
                yield Problem(f"a field's name is text; found `{shown}`", "put it in quotes", document.place(at))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _oddities(document, value, (*at, index))
    elif isinstance(node, float) and not math.isfinite(node):
        yield Problem(f"found `{float(node)}`: a finite number is expected", "", document.place(at))
    elif isinstance(node, int) and abs(node) >= _LARGEST_INT:
        yield Problem("the number is too large", "write less than 2^63", document.place(at))
    elif isinstance(node, str) and any("\ud800" <= character <= "\udfff" for character in node):
        yield Problem("is not Unicode text", "remove the lone surrogate (\\ud800 to \\udfff)", document.place(at))


def _position(node: Any, part: str | int) -> tuple[int, int] | None:
    try:
        if isinstance(node, CommentedMap) and part in node:
            line, column = node.lc.key(part)[:2]
            return line, column
        if isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
            line, column = node.lc.item(part)[:2]
            return line, column
    except (KeyError, TypeError, AttributeError):  # the loader kept no position for this node
        return None
    return None


def _node_at(node: Any, where: Where) -> Any:
    for part in where:
        node = _child(node, part)
    return node


def _child(node: Any, part: str | int) -> Any:
    if isinstance(node, dict):
        return node.get(part)
    if isinstance(node, list) and isinstance(part, int) and part < len(node):
        return node[part]
    return None


def _written(node: Any, location: Where, missing: bool) -> Where:
    """Part of a pydantic location that is in the file.

    Pydantic adds names of validators and union members; a plugin that reads ``{kd: {...}}`` leaves ``kd`` out.
    """
    where: list[str | int] = []
    for index, part in enumerate(location):
        if isinstance(node, dict) and part not in node and len(node) == 1:
            (key, inner), *_ = node.items()
            if isinstance(inner, dict) and part in inner:
                where.append(key)
                node = inner
        if (isinstance(node, dict) and part in node) or (
            isinstance(node, list) and isinstance(part, int) and part < len(node)
        ):
            where.append(part)
            node = _child(node, part)
        elif missing and index == len(location) - 1:
            where.append(part)
    return tuple(where)


def _either(problems: list[Problem]) -> Problem:
    """Merge several problems of one value: they are the members of a union, none of which it fits."""
    first = problems[0]
    messages = list(dict.fromkeys(problem.message for problem in problems))
    if len(messages) == 1:
        return first
    found = messages[0].partition(": ")[0] + ": " if messages[0].startswith("found ") else ""
    return Problem(found + ", or ".join(message.removeprefix(found) for message in messages), first.remedy, first.place)


def _words(item: dict[str, Any], model: type[BaseModel]) -> tuple[str, str]:
    kind, location = item["type"], item["loc"]
    if kind == "extra_forbidden":
        fields = sorted(_fields_at(model, location[:-1]))
        near = nearest_name(str(location[-1]), fields)
        listing = f"(fields here: {', '.join(fields)})" if fields else "(no fields are taken here)"
        return "no such field", "  ".join(filter(None, [f"did you mean `{near}`?" if near else "", listing]))
    if kind == "missing":
        return f"the field `{location[-1]}` is missing", ""
    found = item.get("input")
    scalar = isinstance(found, (str, int, float)) and not isinstance(found, bool)
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        fields = sorted(_fields_at(model, location))
        listing = f"(fields here: {', '.join(fields)})" if fields else ""
        usual = next((record.usual for record in _records_at(model, location) if hasattr(record, "usual")), None)
        short = f"write {location[-1]}: {{{usual}: {printable(str(found))[:80]}}}" if usual and scalar else ""
        return "a mapping of fields is expected here", "  ".join(filter(None, [short, listing]))
    if kind in ("tuple_type", "list_type") and scalar and location:
        shown = printable(str(found))[:80]
        return f"found `{shown}`: a list is expected", f"write {location[-1]}: [{shown}]"
    own = kind in ("quantity", "no_file") or kind.startswith("edgekd")
    shown = f"found `{printable(str(found))[:80]}`: " if isinstance(found, (str, int, float)) and not own else ""
    message = str(item["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if not own:
        message = f"{message[:1].lower()}{message[1:]}".replace("input should be", "should be")
    return printable(f"{shown}{message}")[:600], ""


def _fields_at(model: type[BaseModel], location: Where) -> list[str]:
    """Names of the fields at a location, as far as annotations show."""
    records = _records_at(model, location)
    return [info.alias or name for record in records for name, info in record.model_fields.items()]


def _records_at(model: type[BaseModel], location: Where) -> list[type[BaseModel]]:
    """Records that may stand at a location; parts of it that are no field are union members."""
    records = [model]
    for part in location:
        if isinstance(part, int):
            continue
        inside = [_field(record, part) for record in records]
        if any(annotation is not None for annotation in inside):
            records = [record for annotation in inside for record in _records_in(annotation)]
        else:
            records = [record for record in records if record.__name__ == part] or records
    return records


def _field(record: type[BaseModel], part: str) -> Any:
    for name, info in record.model_fields.items():
        if part in (name, info.alias):
            return info.annotation
    return None


def _records_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [record for argument in getattr(annotation, "__args__", ()) for record in _records_in(argument)]
