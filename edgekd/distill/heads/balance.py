"""What each head's loss is worth beside the others, and how that changes while they train.

- ``none``: as much as its weight says.
- ``uncertainty`` (Kendall, Gal & Cipolla 2018, "Multi-task learning using uncertainty to weigh losses", arXiv
  1705.07115, equation 10, its term for a classification): exp(-s) L + s / 2 with a trained s for each head, 0 at first.
- ``gradnorm`` (Chen et al. 2018, "GradNorm", arXiv 1711.02257): weights follow from the wish that each head pulls at
  the trunk's last layer alike, heads that learn more slowly a little more (alpha = 0.5). A step of theirs (a rate of
  0.025) is taken at each step of the training; they always add up to the number of heads.
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
    """The heads' losses as they are."""

    def forward(self, losses: Sequence[Tensor | None], shared: Sequence[Tensor]) -> list[Tensor | None]:
        """What to add up: a scalar a head. None stands for a head with nothing to learn in this batch.

        ``shared`` are weights that every head's loss depends on.
        """
        del shared
        return list(losses)


class Uncertainty(Balance):
    """With one trained parameter a head."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.logs = nn.Parameter(torch.zeros(heads))

    def forward(self, losses: Sequence[Tensor | None], shared: Sequence[Tensor]) -> list[Tensor | None]:
        """A scalar a head."""
        del shared
        pairs = zip(self.logs, losses, strict=True)
        return [None if loss is None else torch.exp(-log) * loss + log / 2 for log, loss in pairs]


class GradNorm(Balance):
    """With one weight a head, kept in a buffer: no optimizer sees it."""

    weights: Tensor
    first: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.ones(heads))
        self.register_buffer("first", torch.full((heads,), float("nan")))

    def forward(self, losses: Sequence[Tensor | None], shared: Sequence[Tensor]) -> list[Tensor | None]:
        """A scalar a head. In training mode the weights take a step first, if every head has something to learn."""
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
    """The one of that name."""
    if name == "uncertainty":
        return Uncertainty(heads)
    return GradNorm(heads) if name == "gradnorm" else Balance()
