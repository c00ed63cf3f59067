"""Models of tokens that `transformers` has no classifier of."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["mixer"]


class Mixing(nn.Module):
    """A perceptron over patches, then one over channels (Tolstikhin et al. 2021, figure 1)."""

    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.patches = nn.Sequential(nn.Linear(patches, 32), nn.GELU(), nn.Linear(32, patches))
        self.channels = nn.Sequential(nn.Linear(width, 96), nn.GELU(), nn.Linear(96, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.patches(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    """Patches of 8 x 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 48, 8, 8)
        self.blocks = nn.Sequential(Mixing(16, 48), Mixing(16, 48))
        self.norm, self.classes = nn.LayerNorm(48), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.blocks(self.patch(x).flatten(2).transpose(1, 2))
        return self.classes(self.norm(tokens).mean(1))


def mixer() -> nn.Module:
    """Tolstikhin et al. 2021."""
    return Mixer()
