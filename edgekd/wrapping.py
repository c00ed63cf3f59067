"""Wrapping of lines and shortening of names to the width of a terminal."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

__all__ = ["brief_names", "columns", "wrapped"]

_BOUND = "\N{NO-BREAK SPACE}"
_LABEL = re.compile(r"\s*\S+\s{2,}|\s+")
_PART = 40


def columns() -> int:
    """Width of a table on stdout: the terminal's width, at least 80; 80 where stdout is no terminal."""
    return max(80, shutil.get_terminal_size().columns)


def wrapped(text: str, width: int) -> list[str]:
    """Wrap a line to at most ``width`` columns; a longer word stays whole, and so does a command to copy.

    Later lines begin below the first's text, after its label or its indent. A figure keeps its unit, and short parts
    between two `` . `` stay together.
    """
    if len(text) <= width or text.lstrip().startswith("next:"):
        return [text]
    label = _LABEL.match(text)
    indent = " " * (len(label[0]) if label and len(label[0]) <= width // 2 else 2)
    parts = [part.replace(" ", _BOUND) if len(part) <= _PART else part for part in text[len(indent) :].split(" . ")]
    bound = text[: len(indent)] + (f"{_BOUND}. ".join(parts) if len(parts) > 1 else text[len(indent) :])
    bound = re.sub(r"(?<=\d) (?=[^\W\d])", _BOUND, bound)
    lines = textwrap.wrap(
        bound, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
    )
    return [line.replace(_BOUND, " ") for line in lines]


def brief_names(names: Sequence[str], width: int) -> dict[str, str]:
    """Names in ``width`` columns, still distinct: without a common suffix, then without some of their middle.

    The kept end of a name begins with one of its words where that is enough, for pairs differ in their ends.
    """
    known = list(dict.fromkeys(names))
    if max(map(len, known)) <= width:
        return dict(zip(known, known, strict=True))
    suffixes = {Path(name).suffix for name in known}
    stems = [name.removesuffix(*suffixes) for name in known] if len(suffixes) == 1 else known
    ways = [[_elided(stem, width, tail) for stem in stems] for tail in (None, *range((width - 1) // 2 + 1, width - 3))]
    best = next((way for way in ways if len(set(way)) == len(known)), ways[0])
    return dict(zip(known, best, strict=True))


def _elided(name: str, width: int, tail: int | None) -> str:
    """Beginning of the name and its last ``tail`` characters; with None its last words that leave three before them."""
    if len(name) <= width:
        return name
    if tail is None:
        words = [
            len(name) - at for at in (m.end() for m in re.finditer(r"[-_./]", name)) if len(name) - at <= width - 5
        ]
        tail = max(words, default=(width - 1) // 2 + 1)
    return f"{name[: width - tail - 2]}..{name[len(name) - tail :]}"
