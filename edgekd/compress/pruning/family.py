"""Family ``pruned``: a person's own trained model, with fewer channels and fewer residual blocks.

Axes: ``keep_H``, the share of channels kept in all prunable groups with feature maps of height H (``keep_1`` for linear
layers), or with ``ratio_per: group`` ``keep_LAYER``, one for each dependency group, named by its first layer; and
``blocks_STAGE``, the number of blocks kept in that stage. Heights are few, so a short search gets further with them;
groups give more freedom and need more trials. Weights are inherited: the channels of largest magnitude of each group
stay (Li et al. 2017), so an arch is a good start for training, and a bad result without it.

The model must take inputs with the task's normalisation: set the task's ``mean`` and ``std`` to those it was trained
with. The kept channels and blocks depend on the weights alone, so every process builds the same student.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from edgekd.code_references import CodeReference, ExistingFile
from edgekd.compress.pruning.blocks import OPERATORS, BlockStage, drop_blocks, find_stages
from edgekd.compress.pruning.groups import (
    ChannelGroup,
    LeftOut,
    find_groups,
    importances,
    prune_channels,
    traced,
)
from edgekd.errors import ConfigurationError
from edgekd.ir.space import Arch, Axis, Space
from edgekd.records import Digest, Record, digest_json
from edgekd.students._protocol import CutArch, Cuttable
from edgekd.students.analysis import parts_of_arch
from edgekd.students.outputs import answering
from edgekd.students.own import require_fit, require_repeatable
from edgekd.students.supernet.block_costs import BlockCost
from edgekd.students.supernet.derived import derived_block_costs, require_classification
from edgekd.students.weights import built_module, model_digests
from edgekd.tasks._protocol import TaskSpec

if TYPE_CHECKING:
    from edgekd.compress.pruning.supernet import PrunedSupernet

__all__ = ["Pruned"]


def _ascending(ratios: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sorted(set(ratios)))


Ratio = Annotated[float, Field(gt=0.0, le=1.0)]


class Pruned(Record):
    """Options of ``pruned``. ``weights`` may be left out where ``model`` returns a trained model.

    ``round_to``: channel counts are multiples of this, for vector units: 4 or 8, for example.

    ``ratio_per``: one ratio for all groups of one height, or one for each dependency group.
    """

    name: ClassVar[str] = "pruned"
    inherits: ClassVar[bool] = True

    model: CodeReference
    weights: ExistingFile | None = None
    ratios: Annotated[tuple[Ratio, ...], Field(min_length=1), AfterValidator(_ascending)] = (0.25, 0.5, 0.75, 1.0)
    ratio_per: Literal["height", "group"] = "height"
    blocks: bool = True
    round_to: Literal[1, 2, 4, 8, 16, 32] = 8

    def digest(self) -> Digest:
        """Return the identity of options, source and weights."""
        options = self.model_dump(mode="json", exclude={"weights"})
        return digest_json({"options": options, "files": list(model_digests(self.model, self.weights))})

    def space(self, spec: TaskSpec) -> Space:
        """Return the archs of this model; one if nothing can be pruned.

        Raises ConfigurationError for a task that doesn't fit.
        """
        anatomy = _anatomy(self, spec)
        axes = [Axis(name=f"blocks_{stage.name}", choices=stage.counts) for stage in anatomy.stages]
        if len(self.ratios) > 1:
            names = dict.fromkeys(self._axis(group) for group in anatomy.groups)
            axes += [Axis(name=name, choices=self._distinct(name, anatomy)) for name in names]
        return Space(axes=tuple(sorted(axes, key=lambda axis: axis.name)))

    def build(self, arch: Arch, spec: TaskSpec) -> nn.Module:
        """Build the model of one arch with inherited weights, in eval mode.

        It maps normalised (N, C, H, W) to logits, or to raw outputs by name.
        """
        return self._pruned(copy.deepcopy(_anatomy(self, spec).model), None, arch, spec)

    def shrink(self, module: nn.Module, before: Arch, after: Arch, spec: TaskSpec) -> nn.Module:
        """Return a copy of ``module``, a trained student of the arch ``before``, reduced to the smaller arch ``after``.

        Blocks are removed in the order of `build`; channels by their magnitude in ``module``, since training has
        changed which ones matter. Raises ValueError if ``after`` is larger on any axis.
        """
        larger = [axis for axis, choice in after.choices if float(choice) > float(before[axis])]
        if larger:
            raise ValueError(f"{after} is no part of {before}: {larger[0]} grows")
        return self._pruned(copy.deepcopy(module), before, after, spec)

    def supernet(self, spec: TaskSpec) -> PrunedSupernet:
        """Return the supernet with all choices, initialised with the trained weights.

        Raises ConfigurationError if a layer normalises over channels (a masked one would count), or for other heads.
        """
        from edgekd.compress.pruning.supernet import MaskedChannels, PrunedSupernet

        require_classification(spec)
        anatomy, choices = _anatomy(self, spec), {axis.name: axis.choices for axis in self.space(spec).axes}
        model = copy.deepcopy(anatomy.model).requires_grad_(True)  # read from a file, it is frozen
        modules = dict(model.named_modules())
        for layer in (cut.layer for group in anatomy.groups for cut in group.cuts):
            if isinstance(modules[layer], nn.GroupNorm | nn.LayerNorm):
                raise ConfigurationError.one(
                    f"`{self.model.target}` has no supernet: {layer} normalises over channels, masked ones among them",
                    "search by sampling: leave search.by out",
                )
        orders = [_order(scores) for scores in importances(model, anatomy.groups)]
        groups = [
            MaskedChannels(
                axis, group.cuts, order, [self._kept(group, float(ratio)) for ratio in choices.get(axis, self.ratios)]
            )
            for group, order in zip(anatomy.groups, orders, strict=True)
            for axis in [self._axis(group)]
        ]
        stages = {f"blocks_{stage.name}": stage for stage in anatomy.stages}

        def cut(whole: nn.Module, arch: Arch) -> nn.Module:
            return self._pruned(copy.deepcopy(whole), None, arch, spec, orders)

        return PrunedSupernet(model, groups, stages, cut)

    def block_costs(self, spec: TaskSpec) -> Sequence[BlockCost]:
        """Return the block costs of every arch. Raises ConfigurationError for other heads than one of classes."""
        require_classification(spec)
        return _block_costs(self, spec)

    def _pruned(
        self, model: nn.Module, before: Arch | None, arch: Arch, spec: TaskSpec, orders: Sequence[Tensor] | None = None
    ) -> nn.Module:
        """Prune ``model``, of the arch ``before`` (None: the whole), in place; returned in eval mode.

        ``orders`` are the channels of each group of the whole, most important first; None: by magnitude in ``model``.
        """
        anatomy = _anatomy(self, spec)
        for stage in anatomy.stages:
            axis = f"blocks_{stage.name}"
            drop_blocks(model, stage, int(arch[axis]), None if before is None else int(before[axis]))
        remaining = dict(model.named_modules())
        left = [
            (place, group._replace(makers=makers))
            for place, group in enumerate(anatomy.groups)
            if (makers := tuple(name for name in group.makers if name in remaining))  # else it went with its block
        ]
        groups = [group for _, group in left]
        # an axis has the name of the whole group's first layer, which may have gone with its block
        counts = [self._kept(group, self._ratio(anatomy.groups[place], arch)) for place, group in left]
        if before is not None:  # its channels lie elsewhere than in the whole model
            groups = traced(model, spec.input, groups)
        by_now = map(_order, importances(model, groups)) if orders is None else (orders[place] for place, _ in left)
        keep = {
            group.makers[0]: order[:count].sort().values
            for group, count, order in zip(groups, counts, by_now, strict=True)
        }
        prune_channels(model, groups, keep)
        require_fit(model, spec, self.model.target)
        return model.eval().requires_grad_(True)

    def original(self, spec: TaskSpec) -> Arch | None:
        """Return the arch with all channels and blocks; None if no ratio is 1."""
        if self.ratios[-1] != 1.0:
            return None
        return Arch.of({axis.name: axis.choices[-1] for axis in self.space(spec).axes})

    def whole(self, spec: TaskSpec) -> Cuttable:
        """Return the whole model, and a function that removes channels from a copy."""
        anatomy = _anatomy(self, spec)
        groups = {group.makers[0]: group for group in anatomy.groups}

        def take(model: nn.Module, channels: Mapping[str, int]) -> None:
            keep = {name: torch.arange(channels.get(name, group.channels)) for name, group in groups.items()}
            prune_channels(model, anatomy.groups, keep)

        return Cuttable(
            module=anatomy.model,
            channels={name: group.channels for name, group in groups.items()},
            removable=[name for stage in anatomy.stages for name in stage.droppable],
            take=take,
        )

    def cut(self, arch: Arch, spec: TaskSpec) -> CutArch:
        """Return the number of kept channels of each group and the removed blocks of an arch."""
        anatomy = _anatomy(self, spec)
        removed: dict[str, str] = {}
        for stage in anatomy.stages:
            gone = stage.counts[-1] - int(arch[f"blocks_{stage.name}"])
            for name, substitute in list(zip(stage.droppable, stage.substitutes, strict=True))[:gone]:
                removed[name] = OPERATORS[substitute]
        kept = {group.makers[0]: self._kept(group, self._ratio(group, arch)) for group in anatomy.groups}
        return CutArch(channels=kept, removed=removed)

    def left_out(self, spec: TaskSpec) -> Sequence[LeftOut]:
        """Return the layers whose channels can't be pruned, and why. The classifier is always among them."""
        return _anatomy(self, spec).left_out

    def _ratio(self, group: ChannelGroup, arch: Arch) -> float:
        return float(arch[self._axis(group)]) if len(self.ratios) > 1 else self.ratios[0]

    def _axis(self, group: ChannelGroup) -> str:
        return f"keep_{group.size[0] if self.ratio_per == 'height' else group.makers[0]}"

    def _distinct(self, axis: str, anatomy: _Anatomy) -> tuple[float, ...]:
        """Return the ratios that differ after rounding; of equal ones the largest."""
        groups = [group for group in anatomy.groups if self._axis(group) == axis]
        by_counts = {tuple(self._kept(group, ratio) for group in groups): ratio for ratio in self.ratios}
        return tuple(by_counts.values())

    def _kept(self, group: ChannelGroup, share: float) -> int:
        if share == 1.0:
            return group.channels
        unit = math.lcm(self.round_to, group.multiple)
        rounded = unit * max(1, round(share * group.channels / unit))
        return min(rounded, group.channels)


class _Anatomy(NamedTuple):
    """Analysis of the model, cached in each process."""

    model: nn.Module
    groups: tuple[ChannelGroup, ...]
    stages: tuple[BlockStage, ...]
    left_out: tuple[LeftOut, ...]


def _anatomy(family: Pruned, spec: TaskSpec) -> _Anatomy:
    return _anatomy_of(family, spec, family.digest())


@lru_cache(maxsize=4)
def _anatomy_of(family: Pruned, spec: TaskSpec, _content: Digest) -> _Anatomy:
    model = answering(copy.deepcopy(built_module(family.model, family.weights)), spec)  # a function may keep its own
    require_fit(model, spec, family.model.target)
    if spec.plain:
        require_repeatable(model, spec.input, family.model.target)
    if model_digests(family.model, family.weights)[1] is None:
        raise ConfigurationError.one(
            f"`{family.model.target}()` returns other weights at each call: they are drawn at random, not trained",
            "give the trained ones (weights: model.safetensors), or load them in the function",
        )
    groups, left_out = find_groups(model, spec.input)
    stages = find_stages(model, spec.input) if family.blocks else []
    return _Anatomy(model, tuple(groups), tuple(stages), tuple(left_out))


@lru_cache(maxsize=4)
def _block_costs(family: Pruned, spec: TaskSpec) -> Sequence[BlockCost]:
    return derived_block_costs(family.space(spec), lambda arch: parts_of_arch(family, arch, spec))


def _order(scores: Tensor) -> Tensor:
    """Return channels by descending score; of equal scores the earlier channel first."""
    return torch.argsort(scores, descending=True, stable=True)
