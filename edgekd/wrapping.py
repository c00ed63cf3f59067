"""Lines in the width of a terminal."""

from __future__ import annotations

import re
import shutil
import textwrap

__all__ = ["columns", "wrapped"]

_BOUND = "\N{NO-BREAK SPACE}"
_LABEL = re.compile(r"\s*\S+\s{2,}|\s+")
_PART = 40


def columns() -> int:
    """How wide a table on stdout may be: the terminal's width, at least 80; 80 where stdout is no terminal."""
    return max(80, shutil.get_terminal_size().columns)


def wrapped(text: str, width: int) -> list[str]:
    """A line as lines of at most ``width`` columns; a word longer than that stays whole.

    Later lines begin below the first's text, after its label or its indent. A figure keeps its unit, and what stands
    between two `` . `` stays together where it is short.
    """
    if len(text) <= width:
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
