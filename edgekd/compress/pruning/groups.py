"""Channel groups that must be pruned together, from torch-pruning's dependency graph (Fang et al.

2023), verified by trial.

A dependency graph can be wrong: zero-padded shortcuts, fixed reshapes and the classifier itself look prunable to it. So
groups are pruned on a copy; the outputs must have the same shape and equal those with these channels set to zero. A
group that fails is left whole, and its reason is reported with its layer's name. So is one with a part that depends on
its number of channels: a recurrent layer, an attention, a parameter of the model itself.

The graph is traced once for a whole model: each group is stored as cuts (`cuts`), which hold for every smaller model.
torch-pruning has mutable defaults: nothing here relies on one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch_pruning
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgekd.compress.pruning.cuts import Cut, channels_of, scores_of, silence, take_away
from edgekd.errors import first_line
from edgekd.students.traced import MODEL_ERRORS
from edgekd.tasks._protocol import InputSpec

__all__ = ["ChannelGroup", "LeftOut", "find_groups", "importances", "prune_channels", "traced"]


class ChannelGroup(NamedTuple):
    """Channels that are pruned together. ``makers``: the layers that output them, by module name, in graph order."""

    makers: tuple[str, ...]
    channels: int
    size: tuple[int, int]  # height and width of the first maker's output; (1, 1) for a linear layer
    multiple: int = 1  # divisor of the number of channels: a GroupNorm's groups
    cuts: tuple[Cut, ...] = ()


class LeftOut(NamedTuple):
    """Layer that isn't pruned, and why."""

    layer: str
    reason: str


def find_groups(model: nn.Module, given: InputSpec) -> tuple[list[ChannelGroup], list[LeftOut]]:
    """Return the prunable groups of a model for such inputs, and the layers that can't be pruned.

    ``model`` is not changed. Both lists are in the order in which the layers are defined.
    """
    probe = _probe(given)
    sizes = _output_sizes(model, probe)
    position = {name: place for place, name in enumerate(name for name, _ in model.named_modules())}
    followed = copy.deepcopy(model)
    makers = [name for name, module in followed.named_modules() if name in sizes and _is_maker(module)]
    try:
        graph = _Graph(followed, probe)
    except MODEL_ERRORS as error:  # raised by the model's code or by tracing
        return [], [LeftOut(name, f"the model can't be traced: {first_line(error)}") for name in makers]
    proposed: list[ChannelGroup] = []
    reasons: dict[str, str] = {}
    seen: set[str] = set()
    for name in makers:
        if name in seen:
            continue
        group, reason = graph.group(name)
        together = sorted({name, *group.makers}, key=position.__getitem__)
        seen.update(together)
        if reason:
            reasons[together[0]] = reason
        else:
            proposed.append(group._replace(makers=tuple(together), size=sizes[together[0]]))
    trial = _Trial(model, probe)
    exact = [group for group in proposed if not _counts_channels(followed, group)]
    accepted = trial.sift(exact, [], reasons, exactly=True)
    # under a normalisation over channels, zeroing differs from removing: only shapes can be compared
    accepted = trial.sift([group for group in proposed if group not in exact], accepted, reasons, exactly=False)
    return (
        sorted(accepted, key=lambda group: position[group.makers[0]]),
        [LeftOut(name, reasons[name]) for name in sorted(reasons, key=position.__getitem__)],
    )


def traced(model: nn.Module, given: InputSpec, groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
    """Return the same groups with the cuts of this model: a smaller one, with channels at other positions."""
    graph = _Graph(copy.deepcopy(model), _probe(given))
    return [group._replace(cuts=graph.cuts(group.makers[0])) for group in groups]


def importances(model: nn.Module, groups: Sequence[ChannelGroup]) -> list[Tensor]:
    """Return a score for each channel of each group: squared weights, mean over its layers; float64 (channels,)."""
    modules = dict(model.named_modules())
    return [scores_of(modules, group.cuts, _channels(group)) for group in groups]


def prune_channels(model: nn.Module, groups: Sequence[ChannelGroup], keep: Mapping[str, Tensor]) -> None:
    """Remove channels in place. ``keep`` maps the first maker of each group to the indices of kept channels."""
    gone = []
    for group in groups:
        kept = set(keep[group.makers[0]].tolist())
        gone.append((group.cuts, [channel for channel in range(_channels(group)) if channel not in kept]))
    take_away(model, gone)


def _channels(group: ChannelGroup) -> int:
    """Return the number of the group's channels in the model its cuts were found in."""
    return 1 + max(root for cut in group.cuts for root in cut.roots)


class _Graph:
    """Dependency graph of torch-pruning for a model; sets ``requires_grad``, since the graph follows gradients."""

    def __init__(self, model: nn.Module, probe: Tensor) -> None:
        model.requires_grad_(True)
        with torch.inference_mode(False), torch.enable_grad():  # a caller may have switched them off
            self._graph: Any = torch_pruning.DependencyGraph().build_dependency(
                model,
                probe,
                unwrapped_parameters=None,  # parameters that belong to no layer: found, and never pruned
                customized_pruners={},
                ignored_layers=[],
                ignored_params=[],
                verbose=False,
            )
        self._modules = dict(model.named_modules())
        self._names = {module: name for name, module in self._modules.items()}
        self._parameters = {id(parameter): name for name, parameter in model.named_parameters()}

    def group(self, root: str) -> tuple[ChannelGroup, str]:
        """Return the group of a layer's channels, and why it can't be pruned, or ``""``."""
        channels = channels_of(self._modules[root])
        group = ChannelGroup((root,), channels, (1, 1))
        if channels == 1:
            return group, "it has a single channel"
        try:
            found = self._whole(root)
            reason = self._whole_reason(found)
            group = group._replace(makers=self._makers(found))
            if reason:
                return group, reason
            group = group._replace(cuts=self._cuts(found))
        except MODEL_ERRORS as error:
            recurrent = [name for name, module in self._modules.items() if isinstance(module, nn.RNNBase)]
            if recurrent:  # its steps are no operators that indices can be followed through
                return group, f"`{recurrent[0]}` is a recurrent layer, and stays whole"
            return group, f"its channels can't be traced through the model: {first_line(error)}"
        norms = [dep.target.module for dep, _ in found if isinstance(dep.target.module, nn.GroupNorm)]
        multiple = math.lcm(1, *(norm.num_groups for norm in norms))
        if norms and multiple == channels:
            return group, f"`{self._names[norms[0]]}` is a GroupNorm with a group for each of its channels"
        if norms and channels // 2 % multiple:
            return group, f"`{self._names[norms[0]]}` is a GroupNorm whose {multiple} groups don't halve"
        return group._replace(multiple=multiple), ""

    def cuts(self, root: str) -> tuple[Cut, ...]:
        """Return the cuts of this layer's group."""
        return self._cuts(self._whole(root))

    def _whole(self, root: str) -> Any:
        module = self._modules[root]
        pruner = self._graph.get_pruner_of_module(module).prune_out_channels
        return self._graph.get_pruning_group(module, pruner, list(range(channels_of(module))))

    def _makers(self, found: Any) -> tuple[str, ...]:
        return tuple(
            self._names[dep.target.module]
            for dep, _ in found
            if self._graph.is_out_channel_pruning_fn(dep.handler) and _is_maker(dep.target.module)
        )

    def _whole_reason(self, found: Any) -> str:
        """Return why a group can't be pruned: its first part that must stay whole; or ``""``."""
        for dep, _ in found:
            part = dep.target.module
            name = self._parameters.get(id(part), "") if isinstance(part, nn.Parameter) else self._names.get(part, "")
            if isinstance(part, nn.Parameter):
                owner = self._modules.get(name.rpartition(".")[0])
                if isinstance(owner, nn.RNNBase):
                    return f"`{name.rpartition('.')[0]}` is a recurrent layer, and stays whole"
                return f"`{name}` is a parameter of the model itself, and stays whole"
            if isinstance(part, nn.RNNBase):
                return f"`{name}` is a recurrent layer, and stays whole"
            if isinstance(part, nn.MultiheadAttention):
                return f"`{name}` is an attention, and stays whole: its heads share out these channels"
            if isinstance(part, nn.modules.conv._ConvNd) and 1 < part.groups < part.out_channels:
                return f"`{name}` is a grouped convolution"
        return ""

    def _cuts(self, found: Any) -> tuple[Cut, ...]:
        cuts = []
        for item in found.items:
            if item.dep.target.module in self._names:  # else an operator without channels of its own
                makes = self._graph.is_out_channel_pruning_fn(item.dep.handler)
                places = tuple(int(place) for place in item.idxs)
                roots = tuple(int(root) for root in item.root_idxs)
                cuts.append(Cut(self._names[item.dep.target.module], makes, places, roots))
        return tuple(cuts)


class _Trial:
    """Comparison of two copies of a model: one without channels, the other with them set to zero."""

    def __init__(self, model: nn.Module, probe: Tensor) -> None:
        self._model, self._probe = model, probe

    def sift(
        self, proposed: Sequence[ChannelGroup], accepted: list[ChannelGroup], reasons: dict[str, str], exactly: bool
    ) -> list[ChannelGroup]:
        """Return the accepted groups and the proposed ones that work with them; reasons for others go to ``reasons``.

        All are tried at once; on failure each half is tried separately.
        """
        if not proposed:
            return accepted
        reason = self._without_halves([*accepted, *proposed], exactly)
        if not reason:
            return [*accepted, *proposed]
        if len(proposed) == 1:
            reasons[proposed[0].makers[0]] = reason
            return accepted
        middle = len(proposed) // 2
        accepted = self.sift(proposed[:middle], accepted, reasons, exactly)
        return self.sift(proposed[middle:], accepted, reasons, exactly)

    def _without_halves(self, groups: Sequence[ChannelGroup], exactly: bool) -> str:
        """Return why the copies differ without one of several halves of these groups' channels, or ``""``.

        Testing every other channel alone would miss a model that splits its channels in two and concatenates the
        halves.
        """
        generator = torch.Generator().manual_seed(0)
        shuffled = [torch.randperm(group.channels, generator=generator).tolist() for group in groups]
        halves: list[list[Sequence[int]]] = [
            [range(0, group.channels, 2) for group in groups],
            [range(group.channels // 2) for group in groups],
            [order[: group.channels // 2] for group, order in zip(groups, shuffled, strict=True)],
        ]
        return next((reason for half in halves if (reason := self._without(groups, half, exactly))), "")

    def _without(self, groups: Sequence[ChannelGroup], channels: Sequence[Sequence[int]], exactly: bool) -> str:
        """Return why the copies differ without these channels of each group, or ``""``."""
        gone = [(group.cuts, out) for group, out in zip(groups, channels, strict=True)]
        pruned, masked = copy.deepcopy(self._model), copy.deepcopy(self._model)
        try:
            take_away(pruned, gone)
            silence(masked, gone)
            with torch.no_grad():
                found, expected = (pytree.tree_leaves(model(self._probe)) for model in (pruned, masked))
        except MODEL_ERRORS as error:  # raised by a model's code on unexpected channels
            return f"the model fails without some of its channels: {first_line(error)}"
        if [one.shape for one in found] != [other.shape for other in expected]:
            return "its channels are the model's output"
        if exactly and not all(map(_are_close, found, expected)):
            return "removing its channels changes more than setting them to zero: a shortcut or reshape counts on them"
        return ""


def _are_close(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * (1 + float(expected.abs().max())))


def _counts_channels(model: nn.Module, group: ChannelGroup) -> bool:
    """Return whether a normalisation over channels includes the group's."""
    return any(isinstance(model.get_submodule(cut.layer), (nn.LayerNorm, nn.GroupNorm)) for cut in group.cuts)


def _is_maker(module: object) -> bool:
    """Return whether a layer makes new channels; a depthwise convolution only passes them on."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.groups == 1 or module.groups != module.in_channels
    return isinstance(module, nn.Linear)


def _probe(given: InputSpec) -> Tensor:
    return torch.from_numpy(given.random(0, 2))


def _output_sizes(model: nn.Module, probe: Tensor) -> dict[str, tuple[int, int]]:
    """Return height and width of each layer's output in one run; layers that did not run are absent."""
    sizes: dict[str, tuple[int, int]] = {}

    def note(name: str, value: object) -> None:
        if isinstance(value, Tensor):
            sizes[name] = (value.shape[2], value.shape[3]) if value.ndim == 4 else (1, 1)

    handles = [
        module.register_forward_hook(lambda _module, _inputs, value, name=name: note(name, value))
        for name, module in model.named_modules()
    ]
    try:
        with torch.no_grad():
            model(probe)
    finally:
        for handle in handles:
            handle.remove()
    return sizes
