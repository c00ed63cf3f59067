"""Where a training stood: one safetensors file, replaced at once, whose header carries the rest as JSON.

One file, so that weights and epoch can't come from two different moments. No pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from edgekd.distill.probe import Execution
from edgekd.records import Digest, Filed
from edgekd.store.atomic import write_bytes
from edgekd.store.records import CurvePoint

__all__ = ["Position", "read_checkpoint", "write_checkpoint"]


class Position(Filed):
    """Everything about a training that is not a tensor. ``epoch`` and ``step`` are the next to be done."""

    schema_: Literal["edgekd.training/1"] = Field(default="edgekd.training/1", alias="schema")
    plan: Digest  # of what is trained, on what, how: another plan starts afresh
    execution: Execution
    epoch: int = 0
    step: int = 0  # within the epoch
    seconds: float = 0.0  # already spent in this epoch
    curve: tuple[CurvePoint, ...] = ()
    best: float | None = None  # validation of the best of start and epochs, where that is kept


def write_checkpoint(path: Path, position: Position, tensors: Mapping[str, Tensor]) -> None:
    """Replace the checkpoint at once. Raises OSError, and then leaves the old one."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, metadata={"position": position.model_dump_json()}))


def read_checkpoint(path: Path, plan: Digest) -> tuple[Position, dict[str, Tensor]] | None:
    """The checkpoint of this very plan; None where there is none, or it is damaged or another plan's."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            position = Position.model_validate(json.loads((stored.metadata() or {})["position"]))
            tensors = {name: torch.clone(stored.get_tensor(name)) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, json.JSONDecodeError, ValidationError):
        return None  # the training is done again from its start: slower, never wrong
    return (position, tensors) if position.plan == plan else None
