"""Loss balancing between heads, and how the weights change during a training.

- ``none``: fixed weights.
- ``uncertainty`` (Kendall, Gal & Cipolla 2018, "Multi-task learning using uncertainty to weigh losses", arXiv
  1705.07115, equation 10, its term for a classification): exp(-s) L + s / 2 with a trained s for each head, 0 at first.
- ``gradnorm`` (Chen et al. 2018, "GradNorm", arXiv 1711.02257): weights are adjusted so that the gradients of all heads
  at the trunk's last layer have similar norms, larger for heads that learn more slowly (alpha = 0.5). Each training
  step takes one of its steps (rate 0.025); the weights always sum to the number of heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgekd.distill.heads._protocol import BalanceName

__all__ = ["Balance", "GradNorm", "Uncertainty", "balance_of"]

_ALPHA, _RATE = 0.5, 0.025
_LEAST = 0.05  # of an even share: the paper has no floor, and a step could turn a head against itself


class Balance(nn.Module):
    """No balancing: the heads' losses are unchanged."""

    def forward(self, losses: Sequence[Tensor | None], shared: Sequence[Tensor]) -> list[Tensor | None]:
        """Return the weighted loss of each head, a scalar. None stands for a head without labels in this batch.

        ``shared`` are weights on which every head's loss depends.
        """
        del shared
        return list(losses)


class Uncertainty(Balance):
    """Uncertainty weighting with one trained parameter for each head."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.logs = nn.Parameter(torch.zeros(heads))

    def forward(self, losses: Sequence[Tensor | None], shared: Sequence[Tensor]) -> list[Tensor | None]:
        """Return the weighted loss of each head, a scalar."""
        del shared
        pairs = zip(self.logs, losses, strict=True)
        return [None if loss is None else torch.exp(-log) * loss + log / 2 for log, loss in pairs]


class GradNorm(Balance):
    """GradNorm with one weight for each head, kept in a buffer so that no optimizer changes it."""

    weights: Tensor
    first: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.ones(heads))
        self.register_buffer("first", torch.full((heads,), float("nan")))

    def forward(self, losses: Sequence[Tensor | None], shared: Sequence[Tensor]) -> list[Tensor | None]:
        """Return the weighted loss of each head.

        In training mode, first update the weights if every head has a loss.
        """
        there = [loss for loss in losses if loss is not None]
        if self.training and torch.is_grad_enabled() and shared and len(there) == len(losses):
            self._step(there, shared)
        pairs = zip(self.weights, losses, strict=True)
        return [None if loss is None else weight * loss for weight, loss in pairs]

    def _step(self, losses: Sequence[Tensor], shared: Sequence[Tensor]) -> None:
        norms = torch.stack(
            [
                torch.cat([part.flatten() for part in torch.autograd.grad(loss, shared, retain_graph=True)]).norm()
                for loss in losses
            ]
        ).detach()
        with torch.no_grad():
            values = torch.stack(list(losses)).detach().clamp_min(1e-8)
            self.first.copy_(torch.where(torch.isnan(self.first), values, self.first))
            ratio = values / self.first
            pulls = self.weights * norms
            wanted = pulls.mean() * (ratio / ratio.mean()) ** _ALPHA
            # the derivative of |pull - wanted|, in units of the mean norm so that one rate fits all losses
            step = torch.sign(pulls - wanted) * norms / norms.mean().clamp_min(1e-12)
            moved = (self.weights - _RATE * step).clamp_min(_LEAST)
            self.weights.copy_(moved * len(moved) / moved.sum())


def balance_of(name: BalanceName, heads: int) -> Balance:
    """Return the balance of this name."""
    if name == "uncertainty":
        return Uncertainty(heads)
    return GradNorm(heads) if name == "gradnorm" else Balance()
