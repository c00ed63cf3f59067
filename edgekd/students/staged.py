"""Base of families of staged networks: options of their spaces, and the resulting archs.

Axes: ``width1``, ``width2``, ... (channels of each stage), ``depth1``, ``depth2``, ... (blocks of each stage) and, if
there is a choice, ``resolution`` (height of the stem's input, averaged down from the task's) and ``stem_stride``. Every
stage after the first halves the resolution.

If a stage's depth may be 0, the network may end before it: the stage's other axes, and those of later stages, are
conditional and exist if its depth is 1 or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator
from pydantic_core import PydanticCustomError
from torch import nn

from edgekd.errors import ConfigurationError
from edgekd.ir.space import Arch, Axis, Condition, Space
from edgekd.records import Extended, Record
from edgekd.students.growing import growth_depths, transferred
from edgekd.students.trunk import Sizes
from edgekd.tasks._protocol import TaskSpec

if TYPE_CHECKING:
    from edgekd.students.supernet.block_costs import BlockCost
    from edgekd.students.supernet.network import StagedSupernet

__all__ = ["Range", "Staged", "StagedSpace", "SupernetStaged", "at_most", "stepped"]


def _ordered(bounds: tuple[int, ...]) -> tuple[int, ...]:
    if bounds[0] > bounds[1]:
        shown = ", ".join(map(str, bounds))
        raise PydanticCustomError(
            "range", "{reason}", {"reason": f"[{shown}] starts above its end. Write [lowest, highest] or add a step"}
        )
    if bounds[2:] == (0,):
        raise PydanticCustomError(
            "range", "{reason}", {"reason": f"[{shown}] has steps of 0. Write a step of 1 or more"}
        )
    return bounds


def _range_of_one(value: Any) -> Any:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


_OF_TWO_OR_THREE = (Field(min_length=2, max_length=3), AfterValidator(_ordered), BeforeValidator(_range_of_one))
Range = Annotated[tuple[PositiveInt, ...], *_OF_TWO_OR_THREE]
"""Range of an axis: ``[lowest, highest]`` or ``[lowest, highest, step]``; a single number is its only choice."""


def at_most(most: int, what: str) -> AfterValidator:
    """Return a validator that limits a range: one large number of a space would make the analysis of all of it slow."""

    def bounded(bounds: tuple[int, ...]) -> tuple[int, ...]:
        if bounds[1] > most:
            raise PydanticCustomError(
                "range", "{reason}", {"reason": f"{bounds[1]} {what}: {most} are the most that a space may have"}
            )
        return bounds

    return AfterValidator(bounded)


Width = Annotated[Range, at_most(8192, "channels")]
Depth = Annotated[tuple[NonNegativeInt, ...], *_OF_TWO_OR_THREE, at_most(256, "blocks a stage")]


class StagedSpace(Extended):
    """Search space. ``width`` has steps of 8 and ``depth`` steps of 1 unless a third number is given.

    A depth of 0 ends the network before that stage; the first stage, as wide as the stem, has at least one block.
    ``widths`` and ``depths`` have one entry for each stage, and replace ``width`` and ``depth``. ``resolution`` are
    heights in pixels, the task's own divided by whole numbers (empty: the task's own); the width is scaled alike.
    """

    width: Width = (8, 64)
    depth: Depth = (1, 3)
    widths: Annotated[tuple[Width, ...], Field(min_length=1)] | None = None
    depths: Annotated[tuple[Depth, ...], Field(min_length=1)] | None = None
    resolution: tuple[PositiveInt, ...] = ()
    stem_stride: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1,)


class Staged(Record):
    """Base of such families; subclasses define the blocks."""

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
        if self._depth_ranges()[0][0] == 0:
            raise ValueError(
                "the first stage can't be empty, and its depth starts at 0: "
                f"write space.depths, an entry a stage ({self.stages}), the first from 1"
            )
        return self

    def space(self, spec: TaskSpec) -> Space:
        """Return the archs that fit this input. Raises ConfigurationError if an image is too small for the stages."""
        strides, shape = tuple(sorted(set(self.space_.stem_stride))), self.seen(spec)
        resolutions = self._resolutions(spec)
        smallest = min(shape[1:]) * resolutions[0] // shape[1]
        needed = strides[-1] * 2 ** (self.stages - 1)
        if smallest < needed:
            what, unit = ("images", "pixels") if len(shape) == 3 else ("signals", "steps")
            more = "raise student.space.resolution" if len(shape) == 3 else "give longer ones"
            if shape != spec.input.shape:
                what, unit, more = "spectrograms", "mels and frames", "lower student.log_mel.hop"
            raise ConfigurationError.one(
                f"{self.stages} stages and a stem stride of {strides[-1]} need {what} of at least {needed} {unit}, "
                f"and these have {smallest}",
                f"lower student.stages or student.space.stem_stride, or {more}",
            )
        if not spec.plain:
            _check_even(spec, needed * (shape[1] // resolutions[0]))
            if any(depths[0] == 0 for depths in self._depth_ranges()):
                raise ConfigurationError.one(
                    f"the heads of task `{spec.name}` read every stage, and an empty stage gives them nothing",
                    "let each depth of student.space start at 1",
                )
        widths = self.space_.widths or (self.space_.width,) * self.stages
        depths = [
            Axis(name=f"depth{s}", choices=stepped(self._depth_ranges()[s - 1], 1), when=self._exists(s - 1))
            for s in self._stages()
        ]
        axes = [*self._own_axes(), *self._axes("width", widths, 8)]
        axes += [Axis(name="resolution", choices=resolutions)] if len(resolutions) > 1 else []
        axes += [Axis(name="stem_stride", choices=strides)] if len(strides) > 1 else []
        plain = [axis for axis in (*depths, *axes) if not axis.when]
        return Space(
            axes=(
                *sorted(plain, key=lambda axis: axis.name),
                *(axis for axis in depths if axis.when),  # in the order of the stages: each asks for the one before
                *sorted((axis for axis in axes if axis.when), key=lambda axis: axis.name),
            )
        )

    def growth_schedule(self, arch: Arch) -> Sequence[Arch]:
        """Return the same arch with fewer blocks for each stage: one, then up to two, and so on."""
        return [self._deep(arch, depths) for depths in growth_depths(self._depths(arch))]

    def transfer_weights(self, module: nn.Module, before: Arch, into: nn.Module, after: Arch) -> nn.Module:
        """Return ``into`` with the weights of ``module``; the archs differ in depth only."""
        return transferred(module, self._depths(before), into, self._depths(after))

    def seen(self, spec: TaskSpec) -> tuple[int, ...]:
        """Return channels and sides of the input of the stem, or of the averaging before it.

        Raises ConfigurationError if the family can't take the task's input.
        """
        if len(spec.input.shape) != 3:
            raise ConfigurationError.one(
                f"the family {self.name} takes images (channels, height, width); this task's input is "
                f"{spec.input.shape}",
                "choose the family dscnn for a signal (channels, time), own or pruned for several inputs",
            )
        return spec.input.shape

    def _own_axes(self) -> list[Axis]:
        """Return axes that only this family has."""
        return []

    def _axes(self, name: str, ranges: Sequence[Range], step: int) -> list[Axis]:
        return [
            Axis(name=f"{name}{s}", choices=stepped(ranges[s - 1], step), when=self._exists(s)) for s in self._stages()
        ]

    def _exists(self, stage: int) -> tuple[Condition, ...]:
        """Return the condition under which a stage has blocks, and thus a width; empty if it always has."""
        for s in range(stage, 0, -1):
            choices = stepped(self._depth_ranges()[s - 1], 1)
            if choices[0] == 0:  # where its depth is not 0, all stages before have blocks
                return (Condition(axis=f"depth{s}", choices=choices[1:]),)
        return ()

    def _depth_ranges(self) -> Sequence[Sequence[int]]:
        return self.space_.depths or (self.space_.depth,) * self.stages

    def _sizes(self, arch: Arch, spec: TaskSpec) -> Sizes:
        picks, shape = dict(arch.choices), self.seen(spec)
        return Sizes(
            channels=shape[0],
            widths=self._each("width", arch),
            depths=self._each("depth", arch),
            stem_stride=int(picks.get("stem_stride", self.space_.stem_stride[0])),
            shrink=shape[1] // int(picks.get("resolution", self._resolutions(spec)[0])),
            axes=len(shape) - 1,
        )

    def _resolutions(self, spec: TaskSpec) -> tuple[int, ...]:
        """Return resolutions, ascending. Raises ConfigurationError if an image can't be averaged down evenly."""
        height, *others = self.seen(spec)[1:]
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
        """Return an axis's choices for the stages that have blocks."""
        return [
            int(arch[f"{axis}{stage}"])
            for stage, depth in zip(self._stages(), self._depths(arch), strict=True)
            if depth
        ]

    def _depths(self, arch: Arch) -> list[int]:
        """Return the depth of every stage, 0 for those after the network's end."""
        picks = dict(arch.choices)
        return [int(picks.get(f"depth{stage}", 0)) for stage in self._stages()]

    def _deep(self, arch: Arch, depths: Sequence[int]) -> Arch:
        changed = {f"depth{s}": depths[s - 1] for s in self._stages() if f"depth{s}" in arch}
        return Arch.of({**dict(arch.choices), **changed})


class SupernetStaged(Staged):
    """Staged family with blocks that the supernet supports (differentiable search)."""

    def supernet(self, spec: TaskSpec) -> StagedSupernet:
        """Return the supernet of all archs.

        Raises ConfigurationError if resolution or stem stride has a choice, or for several heads.
        """
        from edgekd.students.supernet.network import StagedSupernet
        from edgekd.students.trunk import Classifier

        def build(arch: Arch) -> Classifier:
            network = self.build(arch, spec)
            assert isinstance(network, Classifier), "of one head, as looked at above"
            return network

        return StagedSupernet(self.supernet_space(spec), build)

    def block_costs(self, spec: TaskSpec) -> Sequence[BlockCost]:
        """Return the block costs of all archs. Raises like `supernet`."""
        return _block_costs(self, spec)

    def build(self, arch: Arch, spec: TaskSpec) -> nn.Module:
        """Build a `Classifier` if the task has one classification head."""
        raise NotImplementedError

    def place(self, arch: Arch, module: str) -> str:
        """Return a module name that is the same for the same block in every arch, for any depths of earlier stages."""
        room, _, rest = module.partition(".")
        if room != "blocks" or not rest:
            return module
        number, _, inside = rest.partition(".")
        left = int(number)
        for stage, depth in enumerate(self._depths(arch), start=1):
            if left < depth:
                return f"stage{stage}.{left}.{inside}"
            left -= depth
        raise ValueError(f"{arch} has no block {number}")

    def supernet_space(self, spec: TaskSpec) -> Space:
        """Return the space, if its choices can be trained. Raises like `supernet`."""
        from edgekd.students.supernet.derived import require_classification

        require_classification(spec)
        space = self.space(spec)
        fixed = [axis.name for axis in space.axes if axis.name in ("resolution", "stem_stride")]
        if fixed:
            raise ConfigurationError.one(
                f"{' and '.join(fixed)} can't vary in a supernet: two images, or strides, share no layer's work",
                f"give student.space.{fixed[0]} one value, or search by sampling",
            )
        return space


@lru_cache(maxsize=8)
def _block_costs(family: SupernetStaged, spec: TaskSpec) -> Sequence[BlockCost]:
    from edgekd.students.analysis import parts_of_arch
    from edgekd.students.supernet.derived import derived_block_costs

    return derived_block_costs(
        family.supernet_space(spec), lambda arch: parts_of_arch(family, arch, spec), family.place
    )


def _check_even(spec: TaskSpec, stride: int) -> None:
    """Raise ConfigurationError unless each stage's map is exactly half as large as the last: they are added up."""
    if any(side % stride for side in spec.input.shape[1:]):
        shown = " x ".join(map(str, spec.input.shape[1:]))
        raise ConfigurationError.one(
            f"the last stage is {stride} times smaller than the image, and {shown} pixels can't be divided by that",
            f"give images whose sides are multiples of {stride}, or lower student.stages or student.space.stem_stride",
        )


def stepped(bounds: Sequence[int], step: int) -> tuple[int, ...]:
    """Return all numbers of a range, in its own steps or in ``step``."""
    low, high = bounds[:2]
    return tuple(range(low, high + 1, bounds[2] if len(bounds) == 3 else step))
