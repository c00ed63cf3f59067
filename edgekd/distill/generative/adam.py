"""Adam for generators and discriminators, with its state as named tensors for a checkpoint (Kingma & Ba 2015)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["Adam"]

_BETAS = (0.5, 0.999)  # DCGAN's (arXiv 1511.06434): with 0.9 two networks that play against each other swing
_KEPT = ("exp_avg", "exp_avg_sq", "step")


class Adam:
    """Steps a network along gradients that are handed over, so that nobody else's gradients are touched."""

    def __init__(self, network: nn.Module, rate: float) -> None:
        self._network = network
        self._parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.Adam(self._parameters, lr=rate, betas=_BETAS)

    def step(self, loss: Tensor) -> None:
        """One step against the loss's gradient at this network alone. The loss's graph is freed."""
        gradients = torch.autograd.grad(loss, self._parameters)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """The moving averages, by parameter and kind."""
        return {
            f"{name}.{kind}": value
            for name, parameter in self._network.named_parameters()
            for kind, value in self._optimizer.state.get(parameter, {}).items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from such a state."""
        for name, parameter in self._network.named_parameters():
            kept = {kind: tensors[f"{name}.{kind}"] for kind in _KEPT if f"{name}.{kind}" in tensors}
            if kept:
                layout = torch.preserve_format
                self._optimizer.state[parameter] = {
                    kind: value if kind == "step" else torch.empty_like(parameter, memory_format=layout).copy_(value)
                    for kind, value in kept.items()
                }
