"""A class for the image: the mean over the last features, one linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from edgekd.tasks._protocol import HeadSpec

__all__ = ["Classification"]


class Classification(nn.Module):
    """(N, C, H, W) to logits (N, classes). They are the answer: nothing is decoded."""

    def __init__(self, head: HeadSpec, width: int) -> None:
        super().__init__()
        self.classes = nn.Linear(width, head.classes)
        nn.init.kaiming_normal_(self.classes.weight, nonlinearity="linear")
        nn.init.zeros_(self.classes.bias)

    def forward(self, features: Tensor) -> tuple[Tensor]:
        """One raw answer."""
        return (self.classes(features.mean((2, 3))),)
