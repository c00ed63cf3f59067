"""Transformer encoders: vision transformers after a convolutional stem (Dosovitskiy et al.

2021, arXiv 2010.11929; the stem of Xiao et al. 2021, "Early convolutions help transformers see better", arXiv
2106.14881), and text encoders after an embedding (as in Devlin et al. 2019, "BERT", arXiv 1810.04805).

Axes: ``depth`` (blocks), ``heads``, ``width`` (channels of a token), ``mlp_ratio`` (inner width of a block's perceptron
over ``width``) and ``patch`` (side of one token in pixels: 8 x 8 pixels with ``patch`` 2 are 16 tokens). A head has
``head_width`` channels whatever the width, so that all axes are independent (as in Chen et al. 2021, "AutoFormer",
arXiv 2107.00651).

Blocks are pre-norm (Xiong et al. 2020, arXiv 2002.04745). Tokens have learned positions; the output is a linear layer
on their mean. For texts, padding is masked: the graph recognises it by its id. Attention is written as two matrix
products and a softmax, which every exporter keeps. In static int8, products with weights and the stem compute with
integers; attention, LayerNorm and GELU are float islands, so ``dynamic-int8`` is usually both faster and closer to
float.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import AfterValidator, Field, PositiveInt
from pydantic_core import PydanticCustomError
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # the name torch itself uses

from edgekd.errors import ConfigurationError
from edgekd.ir.space import Arch, Axis, Space
from edgekd.records import Record
from edgekd.students.heads.many import Heads
from edgekd.students.staged import Range, at_most, stepped
from edgekd.students.trunk import he_normal
from edgekd.tasks._protocol import TaskSpec

__all__ = ["Transformer", "TransformerSpace"]

_NARROWEST_STEM = 8
_MOST_TOKENS = 4096
_MASKED = 1e4  # attention scores are far smaller
_TABLE_STD = 0.1  # of an embedding's fresh weights


def _powers(patches: tuple[int, ...]) -> tuple[int, ...]:
    for patch in patches:
        if patch & (patch - 1):
            raise PydanticCustomError(
                "patch", "{patch} is no power of 2: the stem halves the image a whole number of times", {"patch": patch}
            )
    return tuple(sorted(set(patches)))


class TransformerSpace(Record):
    """Search space. ``width`` has steps of 16, others steps of 1, unless a third number is given."""

    depth: Annotated[Range, at_most(64, "blocks")] = (2, 6)
    heads: Annotated[Range, at_most(64, "heads")] = (2, 4)
    width: Annotated[Range, at_most(4096, "channels")] = (48, 128)
    mlp_ratio: Annotated[Range, at_most(16, "times as wide")] = (2, 4)
    patch: Annotated[tuple[PositiveInt, ...], Field(min_length=1), AfterValidator(_powers)] = (4,)
    head_width: PositiveInt = 16


class Transformer(Record):
    """Family ``transformer``."""

    name: ClassVar[str] = "transformer"
    inherits: ClassVar[bool] = False

    space_: TransformerSpace = Field(default=TransformerSpace(), alias="space")

    model_config = Record.model_config | {"populate_by_name": True, "serialize_by_alias": True}

    def space(self, spec: TaskSpec) -> Space:
        """Return the archs that fit this input. Raises ConfigurationError if a patch doesn't divide the image."""
        text = spec.input.text is not None
        if not text and len(spec.input.shape) != 3:
            raise ConfigurationError.one(
                f"the family {self.name} takes images (channels, height, width) and texts; this task's input is "
                f"{spec.input.shape}",
                "choose another family: own or pruned for several inputs",
            )
        for patch in () if text else self.space_.patch:
            _check_patch(patch, *spec.input.shape[1:])
        asked, steps = self.space_, {"depth": 1, "heads": 1, "mlp_ratio": 1, "width": 16}
        axes = [Axis(name=name, choices=stepped(getattr(asked, name), step)) for name, step in steps.items()]
        axes += [Axis(name="patch", choices=asked.patch)] if len(asked.patch) > 1 and not text else []
        return Space(axes=tuple(sorted(axes, key=lambda axis: axis.name)))

    def build(self, arch: Arch, spec: TaskSpec) -> nn.Module:
        """Build an encoder with random weights from torch's global generator, in eval mode."""
        width = int(arch["width"])
        inner = int(arch["heads"]) * self.space_.head_width, int(arch["mlp_ratio"]) * width
        blocks = [EncoderBlock(width, int(arch["heads"]), *inner) for _ in range(int(arch["depth"]))]
        if spec.input.text is not None:
            words = Words(spec.input.text.vocabulary, width)
            encoder = Encoder(words, spec.input.shape[0], width, blocks)
            return TextClassifier(encoder, width, spec.input.text.padding, spec.head.classes).eval()
        patch, (channels, *sides) = int(dict(arch.choices).get("patch", self.space_.patch[0])), spec.input.shape
        encoder = Encoder(Patches(channels, width, patch), math.prod(sides) // patch**2, width, blocks)
        if spec.plain:
            return TokenClassifier(encoder, width, spec.head.classes).eval()
        return ManyHeadedTokens(encoder, width, patch, (sides[0] // patch, sides[1] // patch), spec).eval()


class TokenClassifier(nn.Module):
    """Linear layer on the mean over tokens: (N, C, H, W) to (N, classes)."""

    def __init__(self, encoder: Encoder, width: int, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = _linear(width, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        answer: Tensor = self.head(self.encoder(inputs).mean(1))
        return answer


class ManyHeadedTokens(nn.Module):
    """Heads on the tokens as a map: (N, C, H, W) to raw outputs by name (`heads.many`)."""

    def __init__(self, encoder: Encoder, width: int, stride: int, sides: tuple[int, int], spec: TaskSpec) -> None:
        super().__init__()
        self.encoder, self.sides = encoder, sides
        self.heads = Heads(spec, [width], [stride])

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        tokens = self.encoder(images)
        answers: dict[str, Tensor] = self.heads([tokens.transpose(1, 2).reshape(-1, tokens.shape[2], *self.sides)])
        return answers

    def shared_weights(self) -> list[nn.Parameter]:
        """Return the last linear layer of the last block."""
        return [self.encoder.blocks[-1].get_parameter("perceptron.narrow.weight")]


class TextClassifier(nn.Module):
    """Linear layer on the mean over tokens without padding: ids (N, T) int32 to (N, classes)."""

    def __init__(self, encoder: Encoder, width: int, padding: int, classes: int) -> None:
        super().__init__()
        self.encoder, self.padding = encoder, padding
        self.head = _linear(width, classes)

    def forward(self, ids: Tensor) -> Tensor:
        there = (ids != self.padding).to(torch.float32)
        tokens = self.encoder(ids, (there - 1.0).reshape(-1, 1, 1, ids.shape[1]) * _MASKED)
        sums = (tokens * there.unsqueeze(2)).sum(1)
        answer: Tensor = self.head(sums / there.sum(1, keepdim=True).clamp(min=1.0))
        return answer


class Encoder(nn.Module):
    """Embedding, positions, blocks, and a normalisation: the input of ``embed`` to (N, T, C)."""

    def __init__(self, embed: nn.Module, tokens: int, width: int, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.embed = embed
        self.positions = nn.Parameter(torch.empty(1, tokens, width))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode inputs. ``mask`` (N, 1, 1, T) is added to attention scores: 0, or far below for masked tokens."""
        tokens = torch.add(self.embed(inputs), self.positions)
        for block in self.blocks:
            tokens = block(tokens, mask)
        answer: Tensor = self.norm(tokens)
        return answer


class Words(nn.Module):
    """Token embedding: (N, T) to (N, T, C)."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.table.weight, std=_TABLE_STD)

    def forward(self, ids: Tensor) -> Tensor:
        vectors: Tensor = self.table(ids)
        return vectors


class Patches(nn.Module):
    """Stem: convolutions that halve an image down to one pixel for each token, and a 1x1. (N, C, H, W) to (N, T, C)."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        halvings, layers, before = patch.bit_length() - 1, list[nn.Module](), channels
        for left in reversed(range(max(1, halvings))):
            after = max(_NARROWEST_STEM, width >> left)
            layers.append(Halving(before, after, 2 if halvings else 1))
            before = after
        self.layers = nn.Sequential(*layers)
        self.project = nn.Conv2d(before, width, 1)
        nn.init.kaiming_normal_(self.project.weight, nonlinearity="linear")
        assert self.project.bias is not None
        nn.init.zeros_(self.project.bias)

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.project(self.layers(images)).flatten(2).transpose(1, 2)
        return tokens


class Halving(nn.Module):
    """3x3 convolution of the stem."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(after)
        he_normal(self.conv)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(images)))


class EncoderBlock(nn.Module):
    """Encoder block: attention and perceptron, each pre-normalised and added to its input. (N, T, C) to the same."""

    def __init__(self, width: int, heads: int, attended: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, attended)
        self.perceptron = Perceptron(width, hidden)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        tokens = torch.add(tokens, self.attention(self.norm1(tokens), mask))
        return torch.add(tokens, self.perceptron(self.norm2(tokens)))


class SelfAttention(nn.Module):
    """Scaled dot-product attention of several heads (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, width: int, heads: int, attended: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (attended // heads) ** -0.5
        self.query, self.key, self.value = (_linear(width, attended) for _ in range(3))
        self.out = _linear(attended, width)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = (self._split(layer(tokens)) for layer in (self.query, self.key, self.value))
        scores = torch.matmul(query * self.scale, key.transpose(2, 3))
        shares = torch.softmax(scores if mask is None else torch.add(scores, mask), 3)
        mixed = torch.matmul(shares, value).transpose(1, 2)
        answer: Tensor = self.out(mixed.reshape(-1, mixed.shape[1], self.out.in_features))
        return answer

    def _split(self, channels: Tensor) -> Tensor:
        """Reshape (N, T, heads * head width) to (N, heads, T, head width)."""
        return channels.reshape(-1, channels.shape[1], self.heads, channels.shape[2] // self.heads).transpose(1, 2)


class Perceptron(nn.Module):
    """Two linear layers with GELU in between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.widen, self.narrow = _linear(width, hidden), _linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        answer: Tensor = self.narrow(F.gelu(self.widen(tokens)))
        return answer


def _linear(before: int, after: int) -> nn.Linear:
    """Return a linear layer with Glorot-uniform weights (Glorot & Bengio 2010) and zero biases."""
    layer = nn.Linear(before, after)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _check_patch(patch: int, height: int, width: int) -> None:
    if height % patch or width % patch:
        raise ConfigurationError.one(
            f"images of {height} x {width} pixels can't be cut into patches of {patch} x {patch}",
            "write sides in student.space.patch that divide both sides of the image",
        )
    if (tokens := height * width // patch**2) > _MOST_TOKENS:
        raise ConfigurationError.one(
            f"images of {height} x {width} pixels are {tokens} tokens at a patch of {patch}: at most {_MOST_TOKENS}",
            "raise student.space.patch",
        )
