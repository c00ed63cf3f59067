"""What families of networks in stages have in common: the options of their spaces, and the archs these come to.

Axes: ``width1``, ``width2``, ... (channels of each stage), ``depth1``, ``depth2``, ... (blocks of each stage) and,
where there is a choice, ``resolution`` (height of the image that the stem sees, averaged down from the task's) and
``stem_stride``. Every stage after the first halves the resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, model_validator
from pydantic_core import PydanticCustomError
from torch import nn

from edgekd.errors import ConfigurationError
from edgekd.ir.space import Arch, Axis, Space
from edgekd.records import Record
from edgekd.students.growing import carried, depths_on_the_way
from edgekd.students.trunk import Sizes
from edgekd.tasks._protocol import TaskSpec

__all__ = ["Range", "Staged", "StagedSpace", "at_most", "stepped"]


def _ordered(bounds: tuple[int, ...]) -> tuple[int, ...]:
    if bounds[0] > bounds[1]:
        shown = ", ".join(map(str, bounds))
        raise PydanticCustomError(
            "range", "{reason}", {"reason": f"[{shown}] starts above its end. Write [lowest, highest] or add a step"}
        )
    return bounds


def _range_of_one(value: Any) -> Any:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


Range = Annotated[
    tuple[PositiveInt, ...],
    Field(min_length=2, max_length=3),
    AfterValidator(_ordered),
    BeforeValidator(_range_of_one),
]
"""``[lowest, highest]`` or ``[lowest, highest, step]``; a single number is that number alone."""


def at_most(most: int, what: str) -> AfterValidator:
    """Refuses a range that goes further: one number of a space decides how long all of it takes to look at."""

    def bounded(bounds: tuple[int, ...]) -> tuple[int, ...]:
        if bounds[1] > most:
            raise PydanticCustomError(
                "range", "{reason}", {"reason": f"{bounds[1]} {what}: {most} are the most that a space may have"}
            )
        return bounds

    return AfterValidator(bounded)


Width = Annotated[Range, at_most(8192, "channels")]
Depth = Annotated[Range, at_most(256, "blocks a stage")]


class StagedSpace(Record):
    """What may vary. ``width`` goes in steps of 8 and ``depth`` in steps of 1 unless a third number says otherwise.

    ``widths`` and ``depths`` have an entry a stage, and take the place of ``width`` and ``depth``. ``resolution`` are
    heights in pixels, the task's own divided by whole numbers (empty: the task's own); the width goes along.
    """

    width: Width = (8, 64)
    depth: Depth = (1, 3)
    widths: Annotated[tuple[Width, ...], Field(min_length=1)] | None = None
    depths: Annotated[tuple[Depth, ...], Field(min_length=1)] | None = None
    resolution: tuple[PositiveInt, ...] = ()
    stem_stride: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1,)


class Staged(Record):
    """A family of such networks, but for what its blocks are."""

    name: ClassVar[str]
    inherits: ClassVar[bool] = False
    one_a_stage: ClassVar[tuple[str, ...]] = ("widths", "depths")

    space_: StagedSpace = Field(default=StagedSpace(), alias="space")
    stages: Annotated[int, Field(ge=1, le=4)] = 3

    model_config = Record.model_config | {"populate_by_name": True, "serialize_by_alias": True}

    @model_validator(mode="after")
    def _as_many_as_stages(self) -> Self:
        for name in self.one_a_stage:
            given = getattr(self.space_, name)
            if given is not None and len(given) != self.stages:
                raise ValueError(f"space.{name} has {len(given)} entries, and there are {self.stages} stages: one each")
        return self

    def space(self, spec: TaskSpec) -> Space:
        """The archs that fit this input. Raises ConfigurationError when an image is too small for the stages."""
        strides, shape = tuple(sorted(set(self.space_.stem_stride))), self._seen(spec)
        resolutions = self._resolutions(spec)
        smallest = min(shape[1:]) * resolutions[0] // shape[1]
        needed = strides[-1] * 2 ** (self.stages - 1)
        if smallest < needed:
            raise ConfigurationError.one(
                f"{self.stages} stages and a stem stride of {strides[-1]} need "
                f"{'images of at least' if len(shape) == 3 else 'signals of at least'} {needed} "
                f"{'pixels' if len(shape) == 3 else 'steps'}, and these have {smallest}",
                "lower student.stages or student.space.stem_stride, or raise student.space.resolution",
            )
        if not spec.plain:
            _check_even(spec, needed * (shape[1] // resolutions[0]))
        depths = self.space_.depths or (self.space_.depth,) * self.stages
        widths = self.space_.widths or (self.space_.width,) * self.stages
        axes = [*self._axes("depth", depths, 1), *self._own_axes(), *self._axes("width", widths, 8)]
        axes += [Axis(name="resolution", choices=resolutions)] if len(resolutions) > 1 else []
        axes += [Axis(name="stem_stride", choices=strides)] if len(strides) > 1 else []
        return Space(axes=tuple(sorted(axes, key=lambda axis: axis.name)))

    def way_to(self, arch: Arch) -> Sequence[Arch]:
        """The same with fewer blocks a stage: one, then two, and so on."""
        return [self._deep(arch, depths) for depths in depths_on_the_way(self._each("depth", arch))]

    def carry(self, module: nn.Module, before: Arch, into: nn.Module, after: Arch) -> nn.Module:
        """``into`` with the weights of ``module``; archs that differ in depth alone."""
        return carried(module, self._each("depth", before), into, self._each("depth", after))

    def _seen(self, spec: TaskSpec) -> tuple[int, ...]:
        """Channels and sides of what the stem, or the averaging before it, is given.

        Raises ConfigurationError where the family can't take the task's input.
        """
        if len(spec.input.shape) != 3:
            raise ConfigurationError.one(
                f"the family {self.name} takes images (channels, height, width); this task's input is "
                f"{spec.input.shape}",
                "choose the family dscnn for a signal (channels, time)",
            )
        return spec.input.shape

    def _own_axes(self) -> list[Axis]:
        """Axes that no other family has."""
        return []

    def _axes(self, name: str, ranges: Sequence[Range], step: int) -> list[Axis]:
        return [Axis(name=f"{name}{s}", choices=stepped(ranges[s - 1], step)) for s in self._stages()]

    def _sizes(self, arch: Arch, spec: TaskSpec) -> Sizes:
        picks, shape = dict(arch.choices), self._seen(spec)
        return Sizes(
            channels=shape[0],
            widths=self._each("width", arch),
            depths=self._each("depth", arch),
            stem_stride=int(picks.get("stem_stride", self.space_.stem_stride[0])),
            shrink=shape[1] // int(picks.get("resolution", self._resolutions(spec)[0])),
            axes=len(shape) - 1,
        )

    def _resolutions(self, spec: TaskSpec) -> tuple[int, ...]:
        """Ascending. Raises ConfigurationError where an image can't be averaged down to one evenly."""
        height, *others = self._seen(spec)[1:]
        for asked in self.space_.resolution:
            if height % asked or any(side % (height // asked) for side in others):
                shown = " x ".join(map(str, (height, *others)))
                raise ConfigurationError.one(
                    f"images of {shown} pixels can't be averaged down to a height of {asked} evenly",
                    "write heights in student.space.resolution that divide both sides of the image alike",
                )
        return tuple(sorted(set(self.space_.resolution))) or (height,)

    def _stages(self) -> range:
        return range(1, self.stages + 1)

    def _each(self, axis: str, arch: Arch) -> list[int]:
        return [int(arch[f"{axis}{stage}"]) for stage in self._stages()]

    def _deep(self, arch: Arch, depths: Sequence[int]) -> Arch:
        return Arch.of({**dict(arch.choices), **{f"depth{s}": depths[s - 1] for s in self._stages()}})


def _check_even(spec: TaskSpec, stride: int) -> None:
    """Maps of two stages are added up: each must be exactly half as large as the one before."""
    if any(side % stride for side in spec.input.shape[1:]):
        shown = " x ".join(map(str, spec.input.shape[1:]))
        raise ConfigurationError.one(
            f"the last stage is {stride} times smaller than the image, and {shown} pixels can't be divided by that",
            f"give images whose sides are multiples of {stride}, or lower student.stages or student.space.stem_stride",
        )


def stepped(bounds: Range, step: int) -> tuple[int, ...]:
    """All of a range, in its own steps or in these."""
    low, high = bounds[:2]
    return tuple(range(low, high + 1, bounds[2] if len(bounds) == 3 else step))
