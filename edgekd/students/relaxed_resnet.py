"""All residual networks of a space in one: the widest and deepest, with masks on channels and gates on blocks.

A width's mask keeps its first channels, so that all widths share their weights, and a mixture of widths costs one pass
(Wan et al. 2020, "FBNetV2", arXiv 2004.05565, section 3.1). A block beyond the least depth adds its share of what it
changes, as the depths that have it weigh. With all weight on one arch, masked channels are exactly zero after every
layer, so the pass equals the arch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # the name torch itself uses

from edgekd.ir.space import Arch, Axis
from edgekd.students.pieces import Floats, Piece
from edgekd.students.resnet import Block, Network

__all__ = ["RelaxedNetwork", "resnet_pieces"]

_VECTORS = (16, 32)  # channels that kernels compute at once: a layer of 24 may take as long as one of 32


class RelaxedNetwork(nn.Module):
    """The largest network of the space; what it computes depends on ``picks``."""

    def __init__(self, axes: Sequence[Axis], build: Callable[[Arch], Network]) -> None:
        """``build`` makes the network of an arch, in eval mode."""
        super().__init__()
        choices = {axis.name: axis.choices for axis in axes}
        stages = range(1, 1 + sum(name.startswith("width") for name in choices))
        self.network = build(Arch.of({name: allowed[-1] for name, allowed in choices.items()}))
        self._build = build
        self._depths = [[int(depth) for depth in choices[f"depth{stage}"]] for stage in stages]
        for stage in stages:
            self.register_buffer(f"channels{stage}", _first(choices[f"width{stage}"]), persistent=False)
            self.register_buffer(f"blocks{stage}", _first(choices[f"depth{stage}"]), persistent=False)

    def forward(self, images: Tensor, picks: Mapping[str, Tensor]) -> Tensor:
        """(N, C, H, W) and weights of each axis' choices to logits (N, classes)."""
        features = self.network.stem(self.network.shrink(images)) * self._share("channels", "width", 1, picks)
        blocks = iter(self.network.blocks)
        for stage, depths in enumerate(self._depths, start=1):
            mask = self._share("channels", "width", stage, picks)
            gates = self._share("blocks", "depth", stage, picks)
            for index in range(depths[-1]):
                after = _masked(next(blocks), features, mask)
                features = after if index < depths[0] else torch.lerp(features, after, gates[:, index])
        answer: Tensor = self.network.head(features.mean((2, 3)))
        return answer

    def extract(self, arch: Arch) -> Network:
        """The arch with its share of the weights and statistics, in eval mode."""
        with torch.random.fork_rng(devices=[]):
            network = self._build(arch).eval()
        whole = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        places, before = list[int](), 0
        for stage, depths in enumerate(self._depths, start=1):
            places += [before + index for index in range(int(arch[f"depth{stage}"]))]
            before += depths[-1]
        with torch.no_grad():
            for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
                room, _, rest = name.partition(".")
                if room == "blocks":
                    index, _, inside = rest.partition(".")
                    name = f"blocks.{places[int(index)]}.{inside}"
                tensor.copy_(whole[name][tuple(slice(size) for size in tensor.shape)])
        return network

    def _share(self, table: str, axis: str, stage: int, picks: Mapping[str, Tensor]) -> Tensor:
        """How much of each channel, or block, the choices have together: (1, n, 1, 1)."""
        share: Tensor = picks[f"{axis}{stage}"] @ getattr(self, f"{table}{stage}")
        return share[None, :, None, None]


def resnet_pieces(
    axes: Sequence[Axis], channels: int, classes: int, image: tuple[int, int], shrink: int, stride: int
) -> tuple[Piece, ...]:
    """What the stem, each stage's first block, its further blocks, and the head cost.

    ``image`` is (height, width) before it is averaged down by ``shrink``; ``stride`` is the stem's.
    """
    widths = [np.array(axis.choices, dtype=np.float64) for axis in axes if axis.name.startswith("width")]
    depths = [np.array(axis.choices, dtype=np.float64) for axis in axes if axis.name.startswith("depth")]
    seen = image[0] // shrink * (image[1] // shrink)
    sides = [-(-(side // shrink) // stride) for side in image]
    stem = _conv(9, channels, widths[0], seen, sides[0] * sides[1])
    if shrink > 1:
        stem = _sum(stem, _counts(widths[0], bytes_=4.0 * channels * (image[0] * image[1] + seen), operators=1.0))
    pieces = [Piece("stem", ("width1",), stem)]
    for stage, own in enumerate(widths, start=1):
        pixels_before = pixels = sides[0] * sides[1]
        if stage > 1:
            sides = [-(-side // 2) for side in sides]
            pixels = sides[0] * sides[1]
            before, after = widths[stage - 2][:, None] + 0 * own, own + 0 * widths[stage - 2][:, None]
            first = _sum(
                _conv(9, before, after, pixels_before, pixels),
                _conv(9, after, after, pixels, pixels),
                _conv(1, before, after, pixels_before, pixels),
                _added(after, pixels),
            )
            pieces.append(Piece(f"stage{stage}.first", (f"width{stage - 1}", f"width{stage}"), first))
        further = _sum(_conv(9, own, own, pixels, pixels), _conv(9, own, own, pixels, pixels), _added(own, pixels))
        blocks = depths[stage - 1] - (stage > 1)
        counts = {name: values[:, None] * blocks for name, values in further.items()}
        pieces.append(Piece(f"stage{stage}", (f"width{stage}", f"depth{stage}"), counts))
    last, pixels = widths[-1], sides[0] * sides[1]
    mean = _counts(last, bytes_=4.0 * last * (pixels + 1), operators=1.0)
    head = _sum(mean, _conv(1, last, np.full(last.shape, float(classes)), 1, 1))
    return (*pieces, Piece("head", (f"width{len(widths)}",), head))


def _first(sizes: Sequence[int | float]) -> Tensor:
    """A row for each size: ones, then zeros, (sizes, largest)."""
    return (torch.arange(int(sizes[-1])) < torch.tensor(sizes)[:, None]).float()


def _masked(block: nn.Module, features: Tensor, mask: Tensor) -> Tensor:
    assert isinstance(block, Block)
    inner = F.relu(block.norm1(block.conv1(features))) * mask
    return F.relu(torch.add(block.norm2(block.conv2(inner)), block.shortcut(features))) * mask


def _conv(taps: int, before: Floats | float, after: Floats, pixels_before: int, pixels: int) -> dict[str, Floats]:
    """A convolution with its BatchNorm folded in, and its bias; a linear layer is one of a single pixel."""
    weights = taps * before * after + after
    moved = before * pixels_before + after * pixels
    counts = _counts(after, taps * before * after * pixels, 4.0 * (moved + weights), weights, 1.0)
    for vector in _VECTORS:
        counts[f"macs{vector}"] = taps * before * np.ceil(after / vector) * vector * pixels
    return counts


def _added(width: Floats, pixels: int) -> dict[str, Floats]:
    return _counts(width, bytes_=4.0 * 3.0 * width * pixels, operators=1.0)


def _counts(
    like: Floats,
    macs: Floats | float = 0.0,
    bytes_: Floats | float = 0.0,
    weights: Floats | float = 0.0,
    operators: float = 0.0,
) -> dict[str, Floats]:
    found = {"macs": macs, "bytes": bytes_, "weights": weights, "operators": operators}
    found |= {f"macs{vector}": 0.0 for vector in _VECTORS}
    return {name: np.zeros(like.shape) + value for name, value in found.items()}


def _sum(*counts: Mapping[str, Floats]) -> dict[str, Floats]:
    return {name: np.sum([each[name] for each in counts], axis=0) for name in counts[0]}
