"""Several inputs of a model: their names by its ``forward``, their shapes and types by arrays or by --input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from edgekd.errors import ConfigurationError, Place, UsageError
from edgekd.students.unpacking import inputs_of
from edgekd.tasks.named_inputs import NamedInput, named_input
from edgekd.tasks.npz import array_names, read_array

__all__ = ["LABELS", "model_inputs"]

LABELS = ("y", "labels")
"""Names of an archive's labels."""


def model_inputs(
    module: nn.Module,
    called: str,
    shapes: Sequence[tuple[int, ...]],
    data: Path | None,
    named: Sequence[NamedInput] = (),
) -> tuple[NamedInput, ...]:
    """Return the inputs of a model that takes several; none if it is given one.

    Arrays of an .npz are inputs where two or more have names of ``forward``'s parameters. Without such arrays
    ``shapes`` has one a parameter, float32, or the inputs are those that the model's file ``named``.

    Raises ConfigurationError if they don't fit the model, UsageError if ``shapes`` and ``data`` contradict.
    """
    names, required = inputs_of(module, optional=True), inputs_of(module)
    if len(shapes) > 1 and not len(required) <= len(shapes) <= len(names):
        raise ConfigurationError.one(
            f"`{called}` takes {len(required)} inputs ({', '.join(required)}), and --input has {len(shapes)} shapes",
            "give one an input, in the order of forward, as 3x224x224,4",
        )
    if data is not None and data.exists():
        given = _in_archive(called, names, required, data, several=max(len(shapes), len(required)) > 1)
    elif len(named) > 1:
        given = tuple(named)
    elif len(shapes) > 1:
        given = tuple(NamedInput(name=name, shape=shape) for name, shape in zip(names, shapes, strict=False))
    else:
        return ()
    if given and shapes and [one.shape for one in given] != list(shapes):
        raise UsageError(f"--input differs from the inputs {', '.join(map(str, given))}", "leave --input out")
    return given


def _in_archive(
    called: str, names: Sequence[str], required: Sequence[str], data: Path, several: bool
) -> tuple[NamedInput, ...]:
    """Return the inputs that are arrays of an .npz; none for a model of one. Raises ConfigurationError if some lack."""
    there = array_names(data) if data.suffix == ".npz" and data.is_file() else ()
    found = [name for name in names if name in there and (name in required or name not in LABELS)]
    if several and (len(found) < 2 or not set(required) <= set(found)):
        has = f"has the arrays {', '.join(sorted(there))}" if there else "is no .npz with arrays"
        raise ConfigurationError.one(
            f"{has}, and `{called}` takes {', '.join(required)}",
            "give an .npz with an array for each of them, and the labels as y",
            Place(str(data)),
        )
    return tuple(named_input(name, read_array(data, name), data.name) for name in found) if len(found) > 1 else ()
