"""Where the training of a relaxed network stood: one safetensors file, replaced at once, the rest in its header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from edgekd.distill.probe import Execution
from edgekd.records import Digest, Filed
from edgekd.store.atomic import write_bytes
from edgekd.store.relaxed import RelaxPoint

__all__ = ["RelaxPosition", "read_position", "restore", "write_position"]

Parts = Mapping[str, tuple[nn.Module, torch.optim.Optimizer]]
"""Modules and what trains them, by name."""


class RelaxPosition(Filed):
    """Where a training stands. ``epoch`` and ``step`` are the next to be done."""

    schema_: Literal["edgekd.relaxing/1"] = Field(default="edgekd.relaxing/1", alias="schema")
    plan: Digest
    execution: Execution
    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    multipliers: Mapping[str, float] = {}
    sums: tuple[float, float] = (0.0, 0.0)  # of this epoch's losses: the weights', the choice's
    points: tuple[RelaxPoint, ...] = ()


def write_position(path: Path, position: RelaxPosition, parts: Parts) -> None:
    """Replace the checkpoint at once. Raises OSError, and then leaves the old one."""
    tensors: dict[str, Tensor] = {}
    for part, (module, optimizer) in parts.items():
        tensors |= {f"{part}.value.{name}": tensor for name, tensor in _state(module).items()}
        for name, parameter in module.named_parameters():
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{part}.{key}.{name}"] = value
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, metadata={"position": position.model_dump_json()}))


def read_position(path: Path, plan: Digest) -> tuple[RelaxPosition, dict[str, Tensor]] | None:
    """The checkpoint of this very plan; None where there is none, or it is damaged or another plan's."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            position = RelaxPosition.model_validate_json((stored.metadata() or {})["position"])
            tensors = {name: torch.clone(stored.get_tensor(name)) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValidationError):
        return None  # the training is done again from its start: slower, never wrong
    return (position, tensors) if position.plan == plan else None


@torch.no_grad()
def restore(tensors: Mapping[str, Tensor], parts: Parts) -> None:
    """Put modules and optimizers back (in place) to where a checkpoint has them."""
    for part, (module, optimizer) in parts.items():
        for name, tensor in _state(module).items():
            tensor.copy_(tensors[f"{part}.value.{name}"])
        for name, parameter in module.named_parameters():
            for key, value in _of(tensors, part, name).items():
                like = parameter if value.shape == parameter.shape else value  # its layout too
                optimizer.state[parameter][key] = torch.empty_like(like, requires_grad=False).copy_(value)


def _of(tensors: Mapping[str, Tensor], part: str, parameter: str) -> dict[str, Tensor]:
    """What an optimizer keeps of one parameter."""
    split = {name: name.split(".", 2) for name in tensors}
    return {
        key: tensors[name]
        for name, (owner, key, of) in split.items()
        if (owner, of) == (part, parameter) and key != "value"
    }


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in [*module.named_parameters(), *module.named_buffers()]}
