"""Checkpoints of trainings: one safetensors file, replaced atomically; its header has everything else as JSON.

One file, so that weights and epoch can't come from two different moments. No pickle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from edgekd.distill.autotune import Execution
from edgekd.records import Digest, Filed, Record
from edgekd.store.atomic import write_bytes
from edgekd.tasks._protocol import Score

__all__ = ["CHECKPOINT_FILE", "Position", "Start", "read_checkpoint", "started", "write_checkpoint"]

CHECKPOINT_FILE = "checkpoint.safetensors"

P = TypeVar("P", bound=Record)


class Position(Filed, Generic[P]):
    """State of a training apart from its tensors. ``epoch`` and ``step`` are the next to be done."""

    schema_: Literal["edgekd.training/2"] = Field(default="edgekd.training/2", alias="schema")
    plan: Digest  # of modules, data and options: another plan starts from the beginning
    execution: Execution
    epoch: int = 0
    step: int = 0  # within the epoch
    seconds: float = 0.0  # already spent in this epoch
    points: tuple[P, ...] = ()  # one an epoch, where the training makes any
    rate: float | None = None  # the highest learning rate, where a range test found it
    best: float | None = None  # validation of the best of start and epochs, where that is kept
    start: Score | None = None  # of the start, where an epoch has to beat it beyond chance


@dataclass(frozen=True)
class Start(Generic[P]):
    """Start of a training: a checkpoint, or the beginning, in which case ``tensors`` is None."""

    path: Path
    position: Position[P]
    tensors: Mapping[str, Tensor] | None


def started(folder: Path, plan: Digest, kind: type[Position[P]], probe: Callable[[], Execution]) -> Start[P]:
    """Return this plan's checkpoint in ``folder``; else a new start with the execution that ``probe`` finds fastest."""
    path = folder / CHECKPOINT_FILE
    folder.mkdir(parents=True, exist_ok=True)
    stored = read_checkpoint(path, plan, kind)
    return Start(path, kind(plan=plan, execution=probe()), None) if stored is None else Start(path, *stored)


def write_checkpoint(path: Path, position: Position[P], tensors: Mapping[str, Tensor]) -> None:
    """Replace the checkpoint atomically. Raises OSError, and then keeps the old one."""
    # tied parameters share memory, and safetensors wants each tensor to have its own
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, metadata={"position": position.model_dump_json()}))


def read_checkpoint(path: Path, plan: Digest, kind: type[Position[P]]) -> tuple[Position[P], dict[str, Tensor]] | None:
    """Read the checkpoint of exactly this plan; None if it is absent, damaged or of another plan."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            position = kind.model_validate_json((stored.metadata() or {})["position"])
            tensors = {name: torch.clone(stored.get_tensor(name)) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValidationError):
        return None  # the training is done again from its start: slower, never wrong
    return (position, tensors) if position.plan == plan else None
