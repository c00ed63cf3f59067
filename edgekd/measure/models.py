"""Model files given by a person: found, recognised by their content, and paired as float and compressed.

Nothing is run and no runtime imported: a stranger's file is inspected as bytes.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Sequence
from pathlib import Path

from edgekd.artefacts import Artefact, Format
from edgekd.errors import ConfigurationError, EdgeKDError, Place, Problem, UnknownName, nearest_name
from edgekd.external_weights import NoProtobuf, fields

__all__ = ["Twin", "find_models", "names_of", "pair_twins"]

Twin = tuple[int, int]
"""Indices of a float baseline and of its compressed model."""

_LAST_FIELD = 26  # ModelProto has none beyond
_SUFFIXES = (".onnx", ".tflite", ".xml")
_COMPRESSED = re.compile(
    r"[-_.](?:int8|i8|uint8|u8|quant(?:ized)?|qdq|dynamic|dynamic[-_]int8|w8a8|float16|fp16|f16)(?=[-_.]|$)"
)
_FLOAT = re.compile(r"[-_.](?:float32|fp32|f32|float)(?=[-_.]|$)")


def find_models(paths: Sequence[Path]) -> tuple[Artefact, ...]:
    """Describe every file, once. Raises one ConfigurationError with all that are missing, unreadable or no model."""
    problems: list[Problem] = []
    found: list[Artefact] = []
    for path in {path.absolute(): path for path in paths}.values():
        try:
            found.append(_find(path))
        except ConfigurationError as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigurationError(problems)
    return tuple(found)


def names_of(paths: Sequence[Path]) -> tuple[str, ...]:
    """Names of files in a table: each file's name, with as many parent folders as make it unique."""
    parts = [path.absolute().parts for path in paths]

    def name(mine: tuple[str, ...]) -> str:
        for length in range(1, len(mine)):
            if len({other for other in parts if other[-length:] == mine[-length:]}) == 1:
                return "/".join(mine[-length:])
        return str(Path(*mine))

    return tuple(map(name, parts))


def pair_twins(artefacts: Sequence[Artefact], named: Sequence[tuple[str, str]] = ()) -> tuple[Twin, ...]:
    """Pairs of float and compressed models: those given as (float, compressed), and those found by file name.

    ``resnet8_f32.tflite`` and ``resnet8_int8.tflite`` are a pair, and so are ``net.onnx`` and ``net.int8.onnx``. A
    given name is a file's, or its name in `names_of`. Raises UnknownName where it is not among the models, or fits
    several.
    """
    called, files = names_of([a.path for a in artefacts]), [artefact.path.name for artefact in artefacts]
    places = {name: place for place, name in enumerate(files) if files.count(name) == 1}
    places |= {name: place for place, name in enumerate(called)}
    pairs = []
    for pair in named:
        for name in pair:
            if name not in places:
                raise UnknownName("model", name, called)
        pairs.append((places[pair[0]], places[pair[1]]))
    for index, artefact in enumerate(artefacts):
        stem = artefact.path.stem
        if not _COMPRESSED.search(stem):
            continue
        root = _COMPRESSED.sub("", stem)
        plain = [
            other
            for other, candidate in enumerate(artefacts)
            if candidate.format is artefact.format
            and not _COMPRESSED.search(candidate.path.stem)
            and _FLOAT.sub("", candidate.path.stem) == root
        ]
        beside = [other for other in plain if artefacts[other].path.parent == artefact.path.parent]
        pairs += [(other, index) for other in beside or plain]
    return tuple(dict.fromkeys(pairs))


def _find(path: Path) -> Artefact:
    place = Place(str(path))
    if not path.is_file():
        beside = [p.name for p in path.parent.iterdir() if p.suffix in _SUFFIXES] if path.parent.is_dir() else []
        near = nearest_name(path.name, beside)
        hint = f"did you mean `{path.with_name(near)}`?" if near else f"give a file ({', '.join(_SUFFIXES)})"
        raise ConfigurationError.one("is a folder, not a file" if path.is_dir() else "no such file", hint, place)
    if path.suffix not in _SUFFIXES:
        raise ConfigurationError.one(
            f"no runtime here reads `{path.suffix or path.name}` files",
            f"give one of {', '.join(_SUFFIXES)}; for a PyTorch model name the function that builds it "
            "(my_model.py:build, with --weights), or give what `edgekd export` wrote",
            place,
        )
    try:
        artefact = Artefact.of(path)
        reason = _what_is_wrong(path, artefact.format)
    except OSError as error:
        raise ConfigurationError.one(f"can't be read: {error.strerror}", place=place) from error
    except ConfigurationError:
        raise
    except EdgeKDError as error:
        raise ConfigurationError.one(error.message, error.remedy, place) from error
    if reason:
        raise ConfigurationError.one(reason, "it may be cut off or damaged: copy or export it again", place)
    return artefact


def _what_is_wrong(path: Path, format_: Format) -> str:
    """Reason why the bytes can't be such a file; empty where they may be one."""
    if not path.stat().st_size:
        return "is empty"
    with path.open("rb") as stream:
        head = stream.read(4096)
    if format_ is Format.TFLITE:
        return "" if head[4:8] == b"TFL3" else "is no TFLite file: its identifier TFL3 is missing"
    if format_ is Format.OPENVINO:
        if b"<net" not in head:
            return "is no OpenVINO file: it has no <net> element"
        return (
            "" if path.with_suffix(".bin").is_file() else f"its weights `{path.with_suffix('.bin').name}` are missing"
        )
    return "" if _is_protobuf(path) else "is no ONNX file, or only a part of one"


def _is_protobuf(path: Path) -> bool:
    """Tell whether the fields of the outermost message end exactly where the file ends."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return all(0 < number <= _LAST_FIELD for number, *_ in fields(data, 0, len(data)))
        except NoProtobuf:
            return False
