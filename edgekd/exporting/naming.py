"""Command-line syntax of models and their inputs. Imports no torch: commands parse before they need it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

from edgekd.errors import UsageError

__all__ = ["Shapes", "as_shapes", "is_model", "shapes_of"]

Shapes = Sequence[int] | Sequence[Sequence[int]]
"""The shape of a model's only input, or one an input, without the batch."""

_FUNCTION = re.compile(r"^.+:[^\W\d]\w*$")
_PROGRAM = ".pt2"


def is_model(text: str) -> bool:
    """Tell whether a command's argument names a model to be converted first, and not a file that a runtime reads."""
    return bool(_FUNCTION.match(text)) or text.endswith(_PROGRAM)


def as_shapes(given: Shapes) -> tuple[tuple[int, ...], ...]:
    """Return one shape an input."""
    if all(isinstance(size, int) for size in given):
        return (tuple(cast("Sequence[int]", given)),)
    return tuple(map(tuple, cast("Sequence[Sequence[int]]", given)))


def shapes_of(text: str) -> tuple[tuple[int, ...], ...]:
    """Parse ``3x224x224`` as one shape, and ``3x224x224,4`` as those of several inputs. Raises UsageError."""
    parts = text.split(",")
    if len(parts) == 1:
        return (_shape_of(text),)
    found = [tuple(int(size) if size.isdigit() else 0 for size in part.strip().split("x")) for part in parts]
    if not all(map(all, found)):
        raise UsageError(f"--input {text}: a shape an input expected, without the batch", "for example 3x224x224,4")
    return tuple(found)


def _shape_of(text: str) -> tuple[int, ...]:
    """Parse ``3x224x224``: channels, height, width; ``1x16000``: channels and steps of a signal. Raises UsageError."""
    parts = text.lower().split("x")
    sizes = [int(part) for part in parts if part.isdigit() and int(part) > 0]
    if len(sizes) == len(parts) == 4 and sizes[0] == 1:
        sizes, parts = sizes[1:], parts[1:]  # without the batch, which other tools write first
    if len(sizes) != len(parts):
        raise UsageError(f"--input {text}: sizes with x between them expected", "for example --input 3x224x224")
    if len(sizes) not in (2, 3):
        raise UsageError(
            f"--input {text}: one image (channels x height x width) or signal (channels x steps) is expected; tokens "
            "can't be exported yet",
            "for example --input 3x224x224, or 1x16000",
        )
    return tuple(sizes)
