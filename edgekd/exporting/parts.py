"""Several inputs of a model: their names by its ``forward``, their shapes and types by arrays or by --input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from edgekd.errors import ConfigurationError, UsageError
from edgekd.students.own import inputs_of
from edgekd.tasks.input_parts import InputPart, part_of
from edgekd.tasks.npz import array_names, read_array

__all__ = ["LABELS", "parts_of"]

LABELS = ("y", "labels")
"""Names of an archive's labels."""


def parts_of(
    module: nn.Module,
    called: str,
    shapes: Sequence[tuple[int, ...]],
    data: Path | None,
    named: Sequence[InputPart] = (),
) -> tuple[InputPart, ...]:
    """Return the inputs of a model that takes several; none if it is given one.

    Arrays of an .npz are inputs where two or more have names of ``forward``'s parameters. Without such arrays
    ``shapes`` has one a parameter, float32, or the inputs are those that the model's file ``named``.

    Raises ConfigurationError if they don't fit the model, UsageError if ``shapes`` and ``data`` contradict.
    """
    names, required = inputs_of(module, optional=True), inputs_of(module)
    found = _in_archive(names, required, data)
    if len(shapes) > 1 and not len(required) <= len(shapes) <= len(names):
        raise ConfigurationError.one(
            f"`{called}` takes {len(required)} inputs ({', '.join(required)}), and --input has {len(shapes)} shapes",
            "give one an input, in the order of forward, as 3x224x224,4",
        )
    if data is None or not found:
        if len(shapes) < 2:
            return tuple(named) if len(named) > 1 else ()
        if data is not None:
            raise UsageError(
                f"--data {data}: a model of several inputs takes an .npz with an array each",
                f"name them {', '.join(names[: len(shapes)])}, and the labels y",
            )
        return tuple(InputPart(name=name, shape=shape) for name, shape in zip(names, shapes, strict=False))
    parts = tuple(part_of(name, read_array(data, name), data.name) for name in found)
    if shapes and tuple(part.shape for part in parts) != tuple(shapes):
        raise UsageError(
            f"--input and the arrays of {data.name} differ: {', '.join(map(str, parts))}", "leave --input out"
        )
    return parts


def _in_archive(names: Sequence[str], required: Sequence[str], data: Path | None) -> list[str]:
    if data is None or data.suffix != ".npz" or not data.is_file() or len(names) < 2:
        return []
    there = set(array_names(data))
    found = [name for name in names if name in there and (name in required or name not in LABELS)]
    return found if len(found) > 1 else []
