"""Adam for generators and discriminators (Kingma & Ba 2015)."""

from __future__ import annotations

import torch
from torch import nn

from edgekd.distill.learner import Learner

__all__ = ["adversary"]

_BETAS = (0.5, 0.999)  # DCGAN's (arXiv 1511.06434): with 0.9 two networks that play against each other swing


def adversary(network: nn.Module, rate: float, average: float = 0.0) -> Learner:
    """Return the learner of a network that plays against another.

    ``average`` is the decay of the running average of its weights, 0 for none.
    """
    return Learner(network, torch.optim.Adam(network.parameters(), lr=rate, betas=_BETAS), average=average)
