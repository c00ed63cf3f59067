"""Supernet of a trained model's pruned archs: masks on channels and gates on residual blocks.

The channels of a group are ordered by magnitude once; a ratio's mask keeps the first ones wherever a layer outputs
them, as in Wan et al. 2020, "FBNetV2", arXiv 2004.05565, section 3.1. A removable block is mixed with its replacement.
With all probability on one arch, masked channels are exactly zero, so the outputs equal the arch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from edgekd.compress.pruning.blocks import BlockStage, substitute_of
from edgekd.compress.pruning.cuts import Cut
from edgekd.ir.space import Arch

__all__ = ["MaskedChannels", "PrunedSupernet"]

Picks = Mapping[str, Tensor]


class MaskedChannels(NamedTuple):
    """Group of channels: its axis, the cuts, the channels' order, and the number that each choice keeps."""

    axis: str
    cuts: Sequence[Cut]
    order: Tensor  # channels, the one that stays longest first
    counts: Sequence[int]


class PrunedSupernet(nn.Module):
    """The whole model with choice weights ``picks`` in its forward pass."""

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[MaskedChannels],
        stages: Mapping[str, BlockStage],
        cut: Callable[[nn.Module, Arch], nn.Module],
    ) -> None:
        """Set up masks. ``stages`` are by axis; ``cut`` builds an arch's module from the model's present weights."""
        super().__init__()
        self.model = model
        self._groups, self._stages, self._cut = groups, stages, cut
        for number, group in enumerate(groups):
            places = torch.argsort(group.order)  # of each channel in the order
            kept = (places < torch.tensor(group.counts)[:, None]).float()
            self.register_buffer(f"kept{number}", kept, persistent=False)

    def forward(self, images: Tensor, picks: Picks) -> Tensor:
        """Map images (N, C, H, W) and the weights of each axis's choices to logits (N, classes)."""
        modules = dict(self.model.named_modules())
        hooks = []
        for number, group in enumerate(self._groups):
            kept = self.get_buffer(f"kept{number}")
            share = picks[group.axis] @ kept if group.axis in picks else kept[0]
            for cut in group.cuts:
                if cut.makes:
                    hooks.append(modules[cut.layer].register_forward_hook(_masking(cut, share)))
        for axis, stage in self._stages.items():
            most = stage.counts[-1]
            for place, (name, instead) in enumerate(zip(stage.droppable, stage.substitutes, strict=True)):
                stays = [at for at, count in enumerate(stage.counts) if most - count <= place]
                hooks.append(modules[name].register_forward_hook(_gating(instead, picks[axis][stays].sum())))
        try:
            answer: Tensor = self.model(images)
        finally:
            for hook in hooks:
                hook.remove()
        return answer

    def extract(self, arch: Arch) -> nn.Module:
        """Return the arch with its part of the weights and statistics, in eval mode."""
        return self._cut(self.model, arch)


def _masking(cut: Cut, share: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    def mask(layer: nn.Module, _: Any, answer: Tensor) -> Tensor:
        side = answer.dim() - 1 if isinstance(layer, nn.Linear) else 1
        positions = torch.tensor(cut.positions, device=share.device)
        factors = share.new_ones(answer.shape[side]).index_copy(0, positions, share[list(cut.roots)])
        return answer * factors.reshape([-1 if at == side else 1 for at in range(answer.dim())])

    return mask


def _gating(instead: str, share: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    substitute = substitute_of(instead)

    def gate(_: nn.Module, given: Any, answer: Tensor) -> Tensor:
        around: Tensor = substitute(given[0])
        return around + share * (answer - around)

    return gate
