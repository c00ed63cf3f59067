"""A class for the image, several labels or numbers: the mean over the last features, one linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from edgekd.tasks._protocol import HeadSpec

__all__ = ["Classification"]


class Classification(nn.Module):
    """(N, C, H, W), or their mean (N, C), to (N, classes).

    Logits of classes or labels, which are the answer: nothing is decoded; or standardised numbers.
    """

    def __init__(self, head: HeadSpec, width: int) -> None:
        super().__init__()
        self.classes = nn.Linear(width, head.classes)
        nn.init.kaiming_normal_(self.classes.weight, nonlinearity="linear")
        nn.init.zeros_(self.classes.bias)

    def forward(self, features: Tensor) -> tuple[Tensor]:
        """One raw answer."""
        return (self.classes(features.mean((2, 3)) if features.ndim == 4 else features),)
