"""Residual networks of basic blocks with dense 3x3 convolutions (He et al. 2016, "Deep residual learning", CIFAR form).

Axes: ``width1``, ``width2``, ... (channels of each stage), ``depth1``, ``depth2``, ... (blocks of each stage) and,
where there is a choice, ``resolution`` (height of the image that the stem sees, averaged down from the task's) and
``stem_stride``. Every stage after the first halves the resolution. Shortcuts that change
shape are 1x1 convolutions (option B), so widths are independent of each other. Widths 16, 32, 64 and depths 1, 1, 1
are the ResNet-8 of MLPerf Tiny; depths 3, 3, 3 are ResNet-20.

With ``space: {width: [8, 64], depth: [1, 3]}`` and three stages there are 13,824 archs. ``widths`` and ``depths`` say
the same stage by stage: ``space: {widths: [16, 32, 64], depths: [1, 1, 1]}`` is the ResNet-8 alone.

Tasks with several heads, or with one that says where things are, get the same stem and blocks, and `heads` behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import torch
from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # the name torch itself uses

from edgekd.errors import ConfigurationError
from edgekd.records import Record
from edgekd.students._protocol import Arch, Axis, Space
from edgekd.students.growing import carried, depths_on_the_way
from edgekd.students.heads.many import Heads
from edgekd.tasks._protocol import TaskSpec

if TYPE_CHECKING:
    from edgekd.students.pieces import Piece
    from edgekd.students.relaxed_resnet import RelaxedNetwork

__all__ = ["Block", "Network", "ResNet", "ResNetSpace"]


def _ordered(bounds: tuple[int, ...]) -> tuple[int, ...]:
    if bounds[0] > bounds[1]:
        shown = ", ".join(map(str, bounds))
        raise PydanticCustomError(
            "range", "{reason}", {"reason": f"[{shown}] starts above its end. Write [lowest, highest] or add a step"}
        )
    return bounds


Range = Annotated[tuple[PositiveInt, ...], Field(min_length=2, max_length=3), AfterValidator(_ordered)]
"""``[lowest, highest]`` or ``[lowest, highest, step]``."""


def _range_of_one(value: Any) -> Any:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


Ranges = Annotated[tuple[Annotated[Range, BeforeValidator(_range_of_one)], ...], Field(min_length=1)]
"""One range a stage; a single number is that number alone."""


class ResNetSpace(Record):
    """What may vary. ``width`` goes in steps of 8 and ``depth`` in steps of 1 unless a third number says otherwise.

    ``widths`` and ``depths`` have an entry a stage, and take the place of ``width`` and ``depth``. ``resolution`` are
    heights in pixels, the task's own divided by whole numbers (empty: the task's own); the width goes along.
    """

    width: Range = (8, 64)
    depth: Range = (1, 3)
    widths: Ranges | None = None
    depths: Ranges | None = None
    resolution: tuple[PositiveInt, ...] = ()
    stem_stride: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1,)


class ResNet(Record):
    """The family ``resnet``."""

    name: ClassVar[str] = "resnet"
    inherits: ClassVar[bool] = False

    space_: ResNetSpace = Field(default=ResNetSpace(), alias="space")
    stages: Annotated[int, Field(ge=1, le=4)] = 3

    model_config = Record.model_config | {"populate_by_name": True, "serialize_by_alias": True}

    @model_validator(mode="after")
    def _one_a_stage(self) -> Self:
        for name in ("widths", "depths"):
            given = getattr(self.space_, name)
            if given is not None and len(given) != self.stages:
                raise ValueError(f"space.{name} has {len(given)} entries, and there are {self.stages} stages: one each")
        return self

    def space(self, spec: TaskSpec) -> Space:
        """The archs that fit this input. Raises ConfigurationError when an image is too small for the stages."""
        strides = tuple(sorted(set(self.space_.stem_stride)))
        if len(spec.input.shape) != 3:
            raise ConfigurationError.one(
                f"the family resnet takes images (channels, height, width); this task's input is {spec.input.shape}",
                "choose another family",
            )
        resolutions = self._resolutions(spec)
        smallest = min(spec.input.shape[1:]) * resolutions[0] // spec.input.shape[1]
        needed = strides[-1] * 2 ** (self.stages - 1)
        if smallest < needed:
            raise ConfigurationError.one(
                f"{self.stages} stages and a stem stride of {strides[-1]} need images of at least {needed} pixels, "
                f"and these have {smallest}",
                "lower student.stages or student.space.stem_stride, or raise student.space.resolution",
            )
        if not spec.plain:
            _check_even(spec, needed * (spec.input.shape[1] // resolutions[0]))
        depths = self.space_.depths or (self.space_.depth,) * self.stages
        widths = self.space_.widths or (self.space_.width,) * self.stages
        axes = [Axis(name=f"depth{s}", choices=_choices(depths[s - 1], 1)) for s in self._stages()]
        axes += [Axis(name="resolution", choices=resolutions)] if len(resolutions) > 1 else []
        axes += [Axis(name="stem_stride", choices=strides)] if len(strides) > 1 else []
        axes += [Axis(name=f"width{s}", choices=_choices(widths[s - 1], 8)) for s in self._stages()]
        return Space(axes=tuple(axes))

    def build(self, arch: Arch, spec: TaskSpec) -> nn.Module:
        """A network with He-normal weights from torch's global generator, in eval mode."""
        picks = dict(arch.choices)
        trunk: dict[str, Any] = {
            "channels": spec.input.shape[0],
            "widths": [int(picks[f"width{s}"]) for s in self._stages()],
            "depths": [int(picks[f"depth{s}"]) for s in self._stages()],
            "stem_stride": int(picks.get("stem_stride", self.space_.stem_stride[0])),
            "shrink": spec.input.shape[1] // int(picks.get("resolution", self._resolutions(spec)[0])),
        }
        return (Network(classes=spec.head.classes, **trunk) if spec.plain else ManyHeaded(spec=spec, **trunk)).eval()

    def way_to(self, arch: Arch) -> Sequence[Arch]:
        """The same with fewer blocks a stage: one, then two, and so on."""
        return [self._deep(arch, depths) for depths in depths_on_the_way(self._depths(arch))]

    def carry(self, module: nn.Module, before: Arch, into: nn.Module, after: Arch) -> nn.Module:
        """``into`` with the weights of ``module``; archs that differ in depth alone."""
        return carried(module, self._depths(before), into, self._depths(after))

    def relaxed(self, spec: TaskSpec) -> RelaxedNetwork:
        """All widths and depths in one.

        Raises ConfigurationError where the image or the stem's stride has a choice, or there are several heads.
        """
        if not spec.plain:
            raise ConfigurationError.one(
                f"the choice of an arch is trained for one classification head, and task `{spec.name}` has others",
                "leave search.by out: archs are then tried side by side",
            )
        from edgekd.students.relaxed_resnet import RelaxedNetwork

        def plain(arch: Arch) -> Network:
            network = self.build(arch, spec)
            assert isinstance(network, Network), "of one head, as looked at above"
            return network

        return RelaxedNetwork(self._relaxable(spec).axes, plain)

    def pieces(self, spec: TaskSpec) -> Sequence[Piece]:
        """What stem, blocks and head cost. Raises as `relaxed` does."""
        from edgekd.students.relaxed_resnet import resnet_pieces

        axes, (channels, height, width) = self._relaxable(spec).axes, spec.input.shape
        shrink = height // self._resolutions(spec)[0]
        return resnet_pieces(axes, channels, spec.head.classes, (height, width), shrink, self.space_.stem_stride[0])

    def _relaxable(self, spec: TaskSpec) -> Space:
        space = self.space(spec)
        fixed = [axis.name for axis in space.axes if axis.name in ("resolution", "stem_stride")]
        if fixed:
            raise ConfigurationError.one(
                f"{' and '.join(fixed)} can't be relaxed: two images, or strides, share no layer's work",
                f"give student.space.{fixed[0]} one value, or search by sampling",
            )
        return space

    def _resolutions(self, spec: TaskSpec) -> tuple[int, ...]:
        """Ascending. Raises ConfigurationError where an image can't be averaged down to one evenly."""
        height, width = spec.input.shape[1:]
        for asked in self.space_.resolution:
            if height % asked or width % (height // asked):
                raise ConfigurationError.one(
                    f"images of {height} x {width} pixels can't be averaged down to a height of {asked} evenly",
                    "write heights in student.space.resolution that divide both sides of the image alike",
                )
        return tuple(sorted(set(self.space_.resolution))) or (height,)

    def _stages(self) -> range:
        return range(1, self.stages + 1)

    def _depths(self, arch: Arch) -> list[int]:
        return [int(arch[f"depth{stage}"]) for stage in self._stages()]

    def _deep(self, arch: Arch, depths: Sequence[int]) -> Arch:
        return Arch.of({**dict(arch.choices), **{f"depth{s}": depths[s - 1] for s in self._stages()}})


class Trunk(nn.Module):
    """Stem and blocks. ``shrink`` pixels a side are averaged into one before the stem."""

    def __init__(self, channels: int, widths: list[int], depths: list[int], stem_stride: int, shrink: int) -> None:
        super().__init__()
        self.shrink = nn.AvgPool2d(shrink) if shrink > 1 else nn.Identity()
        self.stem = Stem(channels, widths[0], stem_stride)
        blocks, width = [], widths[0]
        for stage, (after, depth) in enumerate(zip(widths, depths, strict=True)):
            for index in range(depth):
                blocks.append(Block(width, after, stride=2 if stage > 0 and index == 0 else 1))
                width = after
        self.blocks = nn.Sequential(*blocks)

    def _initialise(self) -> None:
        for part in (*self.stem.modules(), *self.blocks.modules()):
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


class Network(Trunk):
    """Mean over the image and one linear layer behind the trunk. (N, C, H, W) to (N, classes)."""

    def __init__(
        self, channels: int, classes: int, widths: list[int], depths: list[int], stem_stride: int, shrink: int = 1
    ) -> None:
        super().__init__(channels, widths, depths, stem_stride, shrink)
        self.head = nn.Linear(widths[-1], classes)
        self._initialise()
        nn.init.kaiming_normal_(self.head.weight, nonlinearity="linear")
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        answer: Tensor = self.head(self.blocks(self.stem(self.shrink(images))).mean((2, 3)))
        return answer


class ManyHeaded(Trunk):
    """Heads behind the trunk. (N, C, H, W) to raw answers by name (`heads.many`)."""

    def __init__(
        self,
        channels: int,
        spec: TaskSpec,
        widths: list[int],
        depths: list[int],
        stem_stride: int,
        shrink: int = 1,
    ) -> None:
        super().__init__(channels, widths, depths, stem_stride, shrink)
        self._initialise()
        self.ends = [sum(depths[: stage + 1]) for stage in range(len(depths))]
        strides = [shrink * stem_stride * 2**stage for stage in range(len(depths))]
        self.heads = Heads(spec, widths, strides)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.stem(self.shrink(images))
        stages = []
        for place, block in enumerate(self.blocks):
            features = block(features)
            if place + 1 in self.ends:
                stages.append(features)
        answers: dict[str, Tensor] = self.heads(stages)
        return answers

    def shared_weights(self) -> list[nn.Parameter]:
        """The last convolution of the trunk."""
        return [self.blocks[-1].get_parameter("conv2.weight")]


class Stem(nn.Module):
    """The first convolution."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(images)))


class Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        same = stride == 1 and before == after
        self.shortcut = nn.Identity() if same else Shortcut(before, after, stride)

    def forward(self, features: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(features)))
        return F.relu(torch.add(self.norm2(self.conv2(inner)), self.shortcut(features)))


class Shortcut(nn.Module):
    """A way around that changes the shape: option B of the paper."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 1, stride, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, features: Tensor) -> Tensor:
        answer: Tensor = self.norm(self.conv(features))
        return answer


def _check_even(spec: TaskSpec, stride: int) -> None:
    """Maps of two stages are added up: each must be exactly half as large as the one before."""
    if any(side % stride for side in spec.input.shape[1:]):
        shown = " x ".join(map(str, spec.input.shape[1:]))
        raise ConfigurationError.one(
            f"the last stage is {stride} times smaller than the image, and {shown} pixels can't be divided by that",
            f"give images whose sides are multiples of {stride}, or lower student.stages or student.space.stem_stride",
        )


def _choices(bounds: tuple[int, ...], step: int) -> tuple[int, ...]:
    low, high = bounds[:2]
    return tuple(range(low, high + 1, bounds[2] if len(bounds) == 3 else step))
