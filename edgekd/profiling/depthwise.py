"""Depthwise probe: a network of depthwise convolutions only, to time them where a runtime has one name for all.

It has a maximum pool too, which no other network of a profile has.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from edgekd.code_references import CodeReference
from edgekd.compress.pruning.family import Pruned
from edgekd.ir.kernels import Kernels
from edgekd.ir.space import Arch
from edgekd.profiling.probes import ProbeTask
from edgekd.students.analysis import kernels_of_arch

__all__ = ["Depthwise", "build"]

_CHANNELS, _SIDE, _LAYERS, _CLASSES = 64, 32, 4, 10


def build() -> nn.Module:
    """Network that takes normalised (N, 64, 32, 32) and gives logits (N, 10)."""
    convolutions = [
        part for _ in range(_LAYERS) for part in (nn.Conv2d(_CHANNELS, _CHANNELS, 3, 1, 1, groups=_CHANNELS), nn.ReLU())
    ]
    pools = nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*convolutions, *pools, nn.Linear(_CHANNELS, 32), nn.ReLU(), nn.Linear(32, _CLASSES))


@dataclass(frozen=True)
class Depthwise:
    """This network as a probe. Its random weights are written into ``folder``."""

    folder: Path
    name: str = "depthwise"

    @property
    def family(self) -> Pruned:
        """Family of the network as a user's own model, unpruned."""
        weights = self.folder / "depthwise.safetensors"
        if not weights.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                save_file(build().state_dict(), weights)
        model = CodeReference(target=f"{__name__}:build", folder=self.folder)
        return Pruned(model=model, weights=weights, ratios=(0.5, 1.0), blocks=False)

    @property
    def task(self) -> ProbeTask:
        """Task with its input and ten classes."""
        return ProbeTask(_SIDE, _CHANNELS)

    def arch(self) -> Arch:
        """Arch of the whole network."""
        space = self.family.space(self.task.spec)
        return space.at(space.size - 1)

    def kernels(self) -> Kernels:
        """Kernels, counted from the layers."""
        return kernels_of_arch(self.family, self.arch(), self.task.spec)
