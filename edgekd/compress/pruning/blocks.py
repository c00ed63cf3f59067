"""Depth pruning: residual blocks that can be removed.

Depth costs more time than width, so this saves more than thin layers.

A block is a child of an ``nn.Sequential`` that computes ``act(x + f(x))``. This is detected by trial, not by class
name: with all weights at zero it must return its input, up to a known activation. A removed block is replaced by that
activation alone, or by nothing if its input is never negative anyway.

The order of removal in a stage is read from the weights: first the block whose branch adds the least to its stream
(Veit et al. 2016 show that single residual blocks can be removed at little loss).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from edgekd.tasks._protocol import InputSpec

__all__ = ["OPERATORS", "BlockStage", "drop_blocks", "find_stages", "substitute_of"]

_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
    "gelu": nn.GELU,
}

OPERATORS: Mapping[str, str] = {
    "identity": "",
    "relu": "relu",
    "relu6": "hardtanh",
    "silu": "silu",
    "hardswish": "hardswish",
    "gelu": "gelu",
}
"""Replacements of removed blocks, by torch's operator names."""


class _Block(NamedTuple):
    name: str
    activation: str
    score: float


class BlockStage(NamedTuple):
    """Blocks of one ``nn.Sequential`` with the same shape, by module name.

    ``droppable`` starts with the least important block. ``fixed`` is the number of blocks of that shape that must stay.
    """

    name: str
    droppable: tuple[str, ...]
    fixed: int
    substitutes: tuple[str, ...]  # replacement of each droppable block

    @property
    def counts(self) -> tuple[int, ...]:
        """Possible numbers of kept blocks, at least one."""
        most = self.fixed + len(self.droppable)
        return tuple(range(max(1, self.fixed), most + 1))


def find_stages(model: nn.Module, given: InputSpec) -> list[BlockStage]:
    """Return the model's stages with removable blocks, for such inputs, in order of definition."""
    seen = _io(model, torch.from_numpy(given.random(0, 2)))
    stages = []
    for parent_name, parent in model.named_modules():
        if not isinstance(parent, nn.Sequential):
            continue
        runs: dict[tuple[int, ...], tuple[list[_Block], int]] = {}
        for child_name, child in parent.named_children():
            name = f"{parent_name}.{child_name}" if parent_name else child_name
            if name not in seen or not any(True for _ in _weighted(child)):
                continue
            inputs, outputs = seen[name]
            blocks, fixed = runs.setdefault(tuple(outputs.shape[1:]), ([], 0))
            activation = _residual(child, inputs) if inputs.shape == outputs.shape else None
            if activation is None:
                runs[tuple(outputs.shape[1:])] = (blocks, fixed + 1)
                continue
            never_negative = bool((inputs >= 0).all())
            substitute = "identity" if activation == "relu" and never_negative else activation
            blocks.append(_Block(name, substitute, _contribution(child, inputs)))
        found = [(blocks, fixed) for blocks, fixed in runs.values() if blocks]
        for place, (blocks, fixed) in enumerate(found, start=1):
            ranked = sorted(blocks, key=lambda block: (block.score, block.name))
            title = (parent_name or "blocks").replace(".", "_")
            stages.append(
                BlockStage(
                    title if len(found) == 1 else f"{title}_{place}",
                    tuple(block.name for block in ranked),
                    fixed,
                    tuple(block.activation for block in ranked),
                )
            )
    return [stage for stage in stages if len(stage.counts) > 1]


def drop_blocks(model: nn.Module, stage: BlockStage, keep: int, of: int | None = None) -> None:
    """Remove blocks in place until ``keep`` remain. Raises ValueError outside ``stage.counts``.

    ``of`` is the number of blocks the model still has, if some were removed before.
    """
    if keep not in stage.counts:
        raise ValueError(f"{stage.name} can keep {stage.counts[0]} to {stage.counts[-1]} blocks, not {keep}")
    most = stage.fixed + len(stage.droppable)
    begun = 0 if of is None else most - of
    for name, substitute in list(zip(stage.droppable, stage.substitutes, strict=True))[begun : most - keep]:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, substitute_of(substitute))


def substitute_of(name: str) -> nn.Module:
    """Return the replacement of a removed block, in eval mode."""
    return _ACTIVATIONS[name]().eval()


def _residual(block: nn.Module, inputs: Tensor) -> str | None:
    """Return the activation ``a`` if the block is ``a(x + f(x))`` and f is 0 with zero weights; else None."""
    hollow = copy.deepcopy(block)
    probe = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in hollow.parameters():
            parameter.zero_()
        try:
            answer = hollow(probe)
        except (RuntimeError, ValueError, TypeError):  # a child that takes more than one tensor is no block
            return None
        for name, make in _ACTIVATIONS.items():
            if isinstance(answer, Tensor) and torch.allclose(answer, make()(probe), atol=1e-6):
                return name
    return None


def _contribution(block: nn.Module, inputs: Tensor) -> float:
    """Return the branch's share of its stream: energy of its last BatchNorm, to six digits so that machines agree.

    A trained BatchNorm's gamma and beta give the branch's size on the training data, without needing the data. A branch
    without one is judged by its change to random input.
    """
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d) and m.affine]
    with torch.no_grad():
        if norms:
            energy = norms[-1].weight.double().square().mean() + norms[-1].bias.double().square().mean()
        else:
            energy = (block(inputs) - inputs).double().square().mean() / inputs.double().square().mean().clamp_min(
                1e-12
            )
    return float(f"{float(energy):.6g}")


def _weighted(module: nn.Module) -> Iterator[nn.Module]:
    return (m for m in module.modules() if isinstance(m, (nn.modules.conv._ConvNd, nn.Linear)))


def _io(model: nn.Module, probe: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Return input and output of every module that takes one tensor, runs once and returns one tensor."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    runs: dict[str, int] = {}

    def note(name: str, inputs: tuple[object, ...], value: object) -> None:
        runs[name] = runs.get(name, 0) + 1
        if len(inputs) == 1 and isinstance(inputs[0], Tensor) and isinstance(value, Tensor):
            seen[name] = (inputs[0].clone(), value.clone())

    handles = [
        module.register_forward_hook(lambda _module, inputs, value, name=name: note(name, inputs, value))
        for name, module in model.named_modules()
    ]
    try:
        with torch.no_grad():
            model(probe)
    finally:
        for handle in handles:
            handle.remove()
    return {name: pair for name, pair in seen.items() if runs[name] == 1}
