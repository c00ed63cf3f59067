"""``inputs.json``: what a file of several inputs takes; ``preprocess.json`` says as much of one input."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgekd.records import Filed, Record

__all__ = ["INPUTS", "OneInput", "SeveralInputs"]

INPUTS = "inputs.json"


class OneInput(Record):
    """An input of a file, the batch included."""

    name: str  # of the parameter of ``forward``
    dtype: Literal["float32"] = "float32"
    shape: tuple[int, ...]


class SeveralInputs(Filed):
    """The inputs in the file's order. Samples of each, and the answers to them, are in ``samples.npz``."""

    schema_: Literal["edgekd.inputs/1"] = Field(default="edgekd.inputs/1", alias="schema")
    inputs: tuple[OneInput, ...]
