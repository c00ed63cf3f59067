"""Progressive growing of residual networks: depth increases during the training.

A block whose last normalisation multiplies by zero adds nothing to its shortcut, so a network's outputs don't change
when such blocks are appended (Chen, Goodfellow & Shlens 2016, "Net2Net", ICLR, arXiv 1511.05641, with the zero scale of
Goyal et al. 2017, arXiv 1706.02677). Its scale has a gradient, so the block soon takes part.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn

__all__ = ["growth_depths", "transferred"]

_BLOCKS = "blocks."


def growth_depths(depths: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the growth schedule: one block for each stage, then up to two, and so on, without the final depths."""
    return [tuple(min(depth, most) for depth in depths) for most in range(1, max(depths))]


def transferred(module: nn.Module, before: Sequence[int], into: nn.Module, after: Sequence[int]) -> nn.Module:
    """Return a copy of ``into`` (``after`` blocks a stage) with the weights of ``module`` (``before`` blocks a stage).

    Both have `blocks`, each with a ``norm2`` before its sum and a shortcut without weights except in a stage's first,
    and are the same otherwise. Blocks that only ``into`` has keep their weights, with zero scale.
    """
    grown = copy.deepcopy(into)
    places = _places(before, after)
    known, tensors = module.state_dict(), grown.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            found = _named(name, places)
            if found is not None:
                tensor.copy_(known[found])
        for block in range(sum(after)):
            if block not in places:
                norm = grown.get_submodule(f"{_BLOCKS}{block}.norm2")
                for name in ("weight", "bias"):
                    norm.get_parameter(name).zero_()
    return grown


def _places(before: Sequence[int], after: Sequence[int]) -> dict[int, int]:
    """Return a map from each block of the new network to the corresponding block of the old one."""
    found, first_before, first_after = dict[int, int](), 0, 0
    for old, new in zip(before, after, strict=True):
        found |= {first_after + index: first_before + index for index in range(min(old, new))}
        first_before, first_after = first_before + old, first_after + new
    return found


def _named(name: str, places: Mapping[int, int]) -> str | None:
    """Return the old network's name of a weight of the new one."""
    if not name.startswith(_BLOCKS):
        return name
    number, rest = name.removeprefix(_BLOCKS).split(".", 1)
    place = places.get(int(number))
    return None if place is None else f"{_BLOCKS}{place}.{rest}"
