"""Several networks' tensors under one roof of names, as a checkpoint keeps them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["copied", "tensors_of"]


def tensors_of(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Parameters and all buffers, those kept out of the state dict too: ``NETWORK.name``. They share the memory."""
    return {
        f"{prefix}.{name}": tensor.detach()
        for prefix, network in networks.items()
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]
    }


@torch.no_grad()
def copied(tensors: Mapping[str, Tensor], networks: Mapping[str, nn.Module]) -> None:
    """Put such tensors back in their places. Raises KeyError where one is missing."""
    for name, tensor in tensors_of(networks).items():
        tensor.copy_(tensors[name])
