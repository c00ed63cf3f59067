"""Packed samples of several inputs, given to a module as the arguments of its ``forward``."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.ir.encoding import PARTING
from edgekd.tasks._protocol import InputSpec
from edgekd.tasks.input_parts import InputPart

__all__ = ["forward_of", "taking_parts"]


def taking_parts(module: nn.Module, given: InputSpec) -> nn.Module:
    """Let the same module take packed samples (N, values), where ``given`` has parts.

    Names of layers and weights stay: a wrapper would change them all.
    """
    if given.parts:
        module.add_module(PARTING, _Parting(given.parts))
        module.forward = MethodType(_forward, module)  # a copy of the module gets its own: deepcopy binds it anew
    return module


def forward_of(module: nn.Module) -> inspect.Signature:
    """Return the signature of a module's ``forward`` as its class defines it.

    Raises TypeError or ValueError where it has none, being made in C.
    """
    if PARTING not in module._modules:
        return inspect.signature(module.forward)
    return inspect.signature(MethodType(type(module).forward, module))


def _forward(module: nn.Module, packed: Tensor) -> Any:
    return type(module).forward(module, **module.get_submodule(PARTING)(packed))


class _Parting(nn.Module):
    """Inputs by name of packed samples (N, values)."""

    def __init__(self, parts: Sequence[InputPart]) -> None:
        super().__init__()
        self.parts = tuple(parts)

    def forward(self, packed: Tensor) -> dict[str, Tensor]:
        found = torch.split(packed, [part.size for part in self.parts], dim=1)
        return {part.name: _shaped(part, values) for part, values in zip(self.parts, found, strict=True)}


def _shaped(part: InputPart, values: Tensor) -> Tensor:
    if part.dtype == "int32":
        values = values.to(torch.int32)
    return values if len(part.shape) == 1 else torch.unflatten(values, 1, part.shape)
