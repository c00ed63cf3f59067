"""Classification, multilabel and regression head: the mean over the last features, then one linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from edgekd.tasks._protocol import HeadSpec

__all__ = ["Classification"]


class Classification(nn.Module):
    """Maps (N, C, H, W), or their mean (N, C), to (N, classes).

    The outputs are logits of classes or labels, which need no decoding, or standardised numbers.
    """

    def __init__(self, head: HeadSpec, width: int) -> None:
        super().__init__()
        self.classes = nn.Linear(width, head.classes)
        nn.init.kaiming_normal_(self.classes.weight, nonlinearity="linear")
        nn.init.zeros_(self.classes.bias)

    def forward(self, features: Tensor) -> tuple[Tensor]:
        """Return one raw output."""
        return (self.classes(features.mean((2, 3)) if features.ndim == 4 else features),)
