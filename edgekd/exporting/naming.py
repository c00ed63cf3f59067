"""Command-line syntax of models and their inputs. Imports no torch: commands parse before they need it."""

from __future__ import annotations

import re

from edgekd.errors import UsageError

__all__ = ["is_model", "shape_of"]

_FUNCTION = re.compile(r"^.+:[^\W\d]\w*$")
_PROGRAM = ".pt2"


def is_model(text: str) -> bool:
    """Tell whether a command's argument names a model to be converted first, and not a file that a runtime reads."""
    return bool(_FUNCTION.match(text)) or text.endswith(_PROGRAM)


def shape_of(text: str) -> tuple[int, ...]:
    """Parse ``3x224x224``: channels, height, width; ``1x16000``: channels and steps of a signal. Raises UsageError."""
    parts = text.lower().split("x")
    sizes = [int(part) for part in parts if part.isdigit() and int(part) > 0]
    if len(sizes) == len(parts) == 4 and sizes[0] == 1:
        sizes, parts = sizes[1:], parts[1:]  # without the batch, which other tools write first
    if len(sizes) != len(parts):
        raise UsageError(f"--input {text}: sizes with x between them expected", "for example --input 3x224x224")
    if len(sizes) not in (2, 3):
        raise UsageError(
            f"--input {text}: one image (channels x height x width) or signal (channels x steps) is taken so far; "
            "tokens and several inputs can't be exported yet",
            "for example --input 3x224x224, or 1x16000",
        )
    return tuple(sizes)
