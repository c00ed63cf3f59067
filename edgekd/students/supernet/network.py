"""Supernet of staged networks: the widest and deepest network, with masks on channels and gates on blocks.

A width's mask keeps its first channels, so that all widths share their weights, and a mixture of widths costs one pass
(Wan et al. 2020, "FBNetV2", arXiv 2004.05565, section 3.1). A block beyond the least depth adds its change in
proportion to the weights of the depths that include it. Blocks of several kinds are all computed, and mixed. If a stage
may be empty, the logits after each possible last stage are mixed. With all weight on one arch, masked channels are
exactly zero after every layer, so the outputs equal the arch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # the name torch itself uses

from edgekd.ir.space import Arch, Choice, Space
from edgekd.students.mobilenet import InvertedResidual, Widen
from edgekd.students.resnet import Block, SeparableBlock
from edgekd.students.trunk import Classifier

__all__ = ["StagedSupernet"]

Picks = Mapping[str, Tensor]


class StagedSupernet(nn.Module):
    """The largest network of the space with choice weights ``picks`` in its forward pass."""

    def __init__(self, space: Space, build: Callable[[Arch], Classifier]) -> None:
        """``build`` makes the network of an arch, in eval mode."""
        super().__init__()
        self._choices = {axis.name: axis.choices for axis in space.axes}
        self._build, self._stages = build, range(1, 1 + sum(name.startswith("width") for name in self._choices))
        largest: dict[str, Choice] = {name: allowed[-1] for name, allowed in self._choices.items()}
        self.network = build(space.arch(largest))
        self._depths = [self._numbers(f"depth{stage}") for stage in self._stages]
        self._widths = [self._numbers(f"width{stage}") for stage in self._stages]
        kinds = self._choices.get("block1", ())
        self.others = nn.ModuleDict(
            {str(kind): build(space.arch({**largest, **self._every("block", kind)})).blocks for kind in kinds[:-1]}
        )
        ends = [stage for stage in self._stages[:-1] if self._depths[stage][0] == 0]
        widest = max([*ends, self._stages[-1]], key=lambda stage: (self._widths[stage - 1][-1], stage))
        if widest < self._stages[-1]:  # the classifier fits each stage that may be the last
            tail = build(space.arch({**largest, f"depth{widest + 1}": 0}))
            self.network.head = tail.head
            if self._widens_at_last:
                self.network.last = tail.get_submodule("last")
        for stage, (widths, depths) in enumerate(zip(self._widths, self._depths, strict=True), start=1):
            self.register_buffer(f"channels{stage}", _first(widths, widths[-1]), persistent=False)
            self.register_buffer(f"blocks{stage}", _first(depths, depths[-1]), persistent=False)
            if f"expansion{stage}" in self._choices:
                for source in {max(1, stage - 1), stage}:
                    self.register_buffer(f"inside{stage}_{source}", self._inside(stage, source), persistent=False)
            if self._widens_at_last:
                ends = [self._times_at_last * width for width in widths]
                self.register_buffer(f"last{stage}", _first(ends, ends[-1]), persistent=False)

    def forward(self, images: Tensor, picks: Picks) -> Tensor:
        """Map images (N, C, H, W) and the weights of each axis's choices to logits (N, classes)."""
        network = self.network
        mask = _everywhere(picks["width1"] @ self.get_buffer("channels1"))
        features = network.stem(network.shrink(images)) * mask
        number, left = 0, images.new_ones(())  # share of the mixture that has not ended yet
        answers = list[Tensor]()
        for stage, depths in enumerate(self._depths, start=1):
            before, mask = mask, _everywhere(picks[f"width{stage}"] @ self.get_buffer(f"channels{stage}"))
            gates = picks[f"depth{stage}"] @ self.get_buffer(f"blocks{stage}")
            if depths[0] == 0:
                answers.append(left * (1.0 - gates[0]) * self._answer(features, stage - 1, picks))
                left = left * gates[0]
                gates = gates / gates[0].clamp_min(1e-6)
            least = max(1, depths[0])
            for index in range(depths[-1]):
                after = self._mixed(number, stage, index == 0, features, before if index == 0 else mask, mask, picks)
                features = after if index < least else torch.lerp(features, after, _everywhere(gates[None, index]))
                number += 1
        last = self._answer(features, self._stages[-1], picks)
        return torch.stack([*answers, left * last]).sum(0) if answers else last

    def extract(self, arch: Arch) -> Classifier:
        """Return the arch with its part of the weights and statistics, in eval mode."""
        with torch.random.fork_rng(devices=[]):
            network = self._build(arch).eval()
        whole = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        for kind, blocks in self.others.items():
            whole |= {
                f"{kind}.{name}": tensor for name, tensor in [*blocks.named_parameters(), *blocks.named_buffers()]
            }
        places, before, picks = list[str](), 0, dict(arch.choices)
        for stage, depths in enumerate(self._depths, start=1):
            kind = str(picks.get(f"block{stage}", ""))
            room = kind if kind in self.others else "blocks"
            places += [f"{room}.{before + index}" for index in range(int(picks.get(f"depth{stage}", 0)))]
            before += depths[-1]
        with torch.no_grad():
            for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
                room, _, rest = name.partition(".")
                if room == "blocks":
                    index, _, inside = rest.partition(".")
                    name = f"{places[int(index)]}.{inside}"
                tensor.copy_(whole[name][tuple(slice(size) for size in tensor.shape)])
        return network

    @property
    def _widens_at_last(self) -> bool:
        return hasattr(self.network, "last")

    @property
    def _times_at_last(self) -> int:
        last = self.network.get_submodule("last.conv")
        assert isinstance(last, nn.Conv2d)
        return last.out_channels // last.in_channels

    def _inside(self, stage: int, source: int) -> Tensor:
        """Return masks of a stage's inner channels by expansion and by width before it, (expansions, widths, n)."""
        expansions, widths = self._numbers(f"expansion{stage}"), self._widths[source - 1]
        sizes = [expansion * width for expansion in expansions for width in widths]
        return _first(sizes, sizes[-1]).reshape(len(expansions), len(widths), -1)

    def _numbers(self, axis: str) -> list[int]:
        return [int(choice) for choice in self._choices[axis]]

    def _every(self, axis: str, choice: Choice) -> dict[str, Choice]:
        return {f"{axis}{stage}": choice for stage in self._stages}

    def _answer(self, features: Tensor, stage: int, picks: Picks) -> Tensor:
        """Return logits with ``stage`` as the last."""
        head = self.network.head
        if self._widens_at_last:
            last, mask = self.network.get_submodule("last"), picks[f"width{stage}"] @ self.get_buffer(f"last{stage}")
            features = last(_padded(features, head.in_features // self._times_at_last))
            features = features[:, : len(mask)] * _everywhere(mask)
        answer: Tensor = head(F.pad(features.mean((2, 3)), (0, head.in_features - features.shape[1])))
        return answer

    def _mixed(
        self, number: int, stage: int, first: bool, features: Tensor, before: Tensor, after: Tensor, picks: Picks
    ) -> Tensor:
        """Run block ``number`` of the largest network, mixed over its stage's kinds of blocks."""
        blocks = [room.get_submodule(str(number)) for room in (*self.others.values(), self.network.blocks)]
        if isinstance(blocks[0], InvertedResidual):
            source = stage - 1 if first and stage > 1 else stage
            inside = torch.einsum("ewn,w->en", self.get_buffer(f"inside{stage}_{source}"), picks[f"width{source}"])
            expansions = self._numbers(f"expansion{stage}")
            return _inverted(blocks[0], features, picks[f"expansion{stage}"], inside, expansions, after)
        done = [_masked(block, features, before, after) for block in blocks]
        if len(done) == 1:
            return done[0]
        return torch.stack([share * each for share, each in zip(picks[f"block{stage}"], done, strict=True)]).sum(0)


def _first(sizes: Sequence[int], most: int) -> Tensor:
    """Return a row for each size: ones, then zeros, (sizes, most)."""
    return (torch.arange(most) < torch.tensor(sizes)[:, None]).float()


def _padded(features: Tensor, channels: int) -> Tensor:
    """Append zero channels up to ``channels``."""
    missing = channels - features.shape[1]
    return F.pad(features, (0, 0, 0, 0, 0, missing)) if missing else features


def _everywhere(share: Tensor) -> Tensor:
    """Reshape (n,) to a factor of (N, n, H, W)."""
    return share[None, :, None, None]


def _masked(block: nn.Module, features: Tensor, before: Tensor, after: Tensor) -> Tensor:
    if isinstance(block, SeparableBlock):
        inner = F.relu(block.depthwise_norm1(block.depthwise1(features))) * before
        inner = F.relu(block.norm1(block.conv1(inner))) * after
        inner = F.relu(block.depthwise_norm2(block.depthwise2(inner))) * after
    else:
        assert isinstance(block, Block)
        inner = F.relu(block.norm1(block.conv1(features))) * after
    return F.relu(torch.add(block.norm2(block.conv2(inner)), block.shortcut(features))) * after


def _inverted(
    block: InvertedResidual, features: Tensor, picks: Tensor, inside: Tensor, expansions: Sequence[int], after: Tensor
) -> Tensor:
    """Run an inverted residual. ``inside``: weight of each inner channel by expansion, (expansions, channels)."""
    inner = features
    if isinstance(block.widen, Widen):
        wide = [place for place, expansion in enumerate(expansions) if expansion > 1]
        inner = block.widen(features) * _everywhere(picks[wide] @ inside[wide])
        if expansions[0] == 1:  # nothing is widened: the features themselves are the first of the inner channels
            inner = inner + picks[0] * _padded(features, inner.shape[1])
    inner = F.relu6(block.norm1(block.conv1(inner))) * _everywhere(picks @ inside)
    answer = block.norm2(block.conv2(inner))
    return (torch.add(answer, features) if block.adds else answer) * after
