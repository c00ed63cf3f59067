"""Channels that must be removed together, found through torch-pruning's dependency graph (Fang et al. 2023) and tried.

A dependency graph can be wrong: zero-padded shortcuts, fixed reshapes and the classifier itself look prunable to it.
So groups are pruned on a copy, and must leave the model answering, in the same shape, exactly as it does with those
channels set to zero. A group that fails is left alone, and why is told with its layer's name. So is one with a part
that counts on its number of channels: a recurrent layer, an attention, a parameter of the model itself.

The graph is traced once for a whole model: what it says of each group is kept as cuts (`cuts`), which hold for every
smaller one. torch-pruning keeps mutable defaults: nothing here relies on one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch_pruning
from torch import Tensor, nn

from edgekd.compress.pruning.cuts import Cut, channels_of, scores_of, silence, take_away
from edgekd.students.traced import MODEL_ERRORS
from edgekd.tasks._protocol import InputSpec

__all__ = ["ChannelGroup", "LeftOut", "find_groups", "importances", "prune_channels", "traced"]


class ChannelGroup(NamedTuple):
    """Channels that go together. ``makers`` are the layers that make them, by module name, in graph order."""

    makers: tuple[str, ...]
    channels: int
    size: tuple[int, int]  # height and width of what the first maker makes; (1, 1) for a linear layer
    multiple: int = 1  # what their number must be a multiple of: a GroupNorm's groups
    cuts: tuple[Cut, ...] = ()


class LeftOut(NamedTuple):
    """A layer that isn't pruned, and why."""

    layer: str
    reason: str


def find_groups(model: nn.Module, given: InputSpec) -> tuple[list[ChannelGroup], list[LeftOut]]:
    """Groups of a model for such inputs that can be pruned, and the layers that can't.

    ``model`` is not changed. Both lists are in the order the layers are defined.
    """
    probe = _probe(given)
    sizes = _output_sizes(model, probe)
    position = {name: place for place, name in enumerate(name for name, _ in model.named_modules())}
    followed = copy.deepcopy(model)
    makers = [name for name, module in followed.named_modules() if name in sizes and _is_maker(module)]
    try:
        graph = _Graph(followed, probe)
    except MODEL_ERRORS as error:  # what the model's code and the tracing of it raise
        return [], [LeftOut(name, f"the model can't be followed: {_first_line(error)}") for name in makers]
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
    # zeroing and removing differ where a normalisation over channels sees them: only shapes can be compared
    accepted = trial.sift([group for group in proposed if group not in exact], accepted, reasons, exactly=False)
    return (
        sorted(accepted, key=lambda group: position[group.makers[0]]),
        [LeftOut(name, reasons[name]) for name in sorted(reasons, key=position.__getitem__)],
    )


def traced(model: nn.Module, given: InputSpec, groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
    """The same groups with the cuts of this model: a smaller one, whose channels lie elsewhere."""
    graph = _Graph(copy.deepcopy(model), _probe(given))
    return [group._replace(cuts=graph.cuts(group.makers[0])) for group in groups]


def importances(model: nn.Module, groups: Sequence[ChannelGroup]) -> list[Tensor]:
    """A score a channel for each group: its squared weights, mean over the group's layers; float64 (channels,)."""
    modules = dict(model.named_modules())
    return [scores_of(modules, group.cuts, _channels(group)) for group in groups]


def prune_channels(model: nn.Module, groups: Sequence[ChannelGroup], keep: Mapping[str, Tensor]) -> None:
    """Take channels away in place. ``keep`` maps the first maker of each group to the indices of those that stay."""
    gone = []
    for group in groups:
        kept = set(keep[group.makers[0]].tolist())
        gone.append((group.cuts, [channel for channel in range(_channels(group)) if channel not in kept]))
    take_away(model, gone)


def _channels(group: ChannelGroup) -> int:
    """How many channels the model has of it that its cuts were found in."""
    return 1 + max(root for cut in group.cuts for root in cut.roots)


class _Graph:
    """torch-pruning's dependency graph of a model, which is made to ask for gradients: the graph follows them."""

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
        """The group of a layer's channels, and why it can't be pruned, or ``""``."""
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
            return group, f"its channels can't be followed through the model: {_first_line(error)}"
        norms = [dep.target.module for dep, _ in found if isinstance(dep.target.module, nn.GroupNorm)]
        multiple = math.lcm(1, *(norm.num_groups for norm in norms))
        if norms and multiple == channels:
            return group, f"`{self._names[norms[0]]}` is a GroupNorm with a group for each of its channels"
        if norms and channels // 2 % multiple:
            return group, f"`{self._names[norms[0]]}` is a GroupNorm whose {multiple} groups don't halve"
        return group._replace(multiple=multiple), ""

    def cuts(self, root: str) -> tuple[Cut, ...]:
        """Where the channels of this layer's group lie."""
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
        """The first part of a group that has to stay whole, and with it the group."""
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
    """Two copies of a model: one loses channels, the other has them set to zero. They must agree."""

    def __init__(self, model: nn.Module, probe: Tensor) -> None:
        self._model, self._probe = model, probe

    def sift(
        self, proposed: Sequence[ChannelGroup], accepted: list[ChannelGroup], reasons: dict[str, str], exactly: bool
    ) -> list[ChannelGroup]:
        """Those accepted before and those that work beside them; why each other one doesn't goes to ``reasons``.

        Many are tried at once, and half of them each where that fails.
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
        """Why the copies differ without one half or another of these groups' channels, or ``""``.

        Every other channel alone would leave a model right that splits its channels in two and joins the halves.
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
        """Take these channels of each group from both copies; why they differ then, or ``""``."""
        gone = [(group.cuts, out) for group, out in zip(groups, channels, strict=True)]
        pruned, masked = copy.deepcopy(self._model), copy.deepcopy(self._model)
        try:
            take_away(pruned, gone)
            silence(masked, gone)
            with torch.no_grad():
                found, expected = pruned(self._probe), masked(self._probe)
        except MODEL_ERRORS as error:  # whatever a model's own code raises on channels it did not expect
            return f"the model fails without some of its channels: {_first_line(error)}"
        if found.shape != expected.shape:
            return "its channels are the model's answer"
        tolerance = 1e-4 * (1 + float(expected.abs().max()))
        if exactly and not torch.allclose(found, expected, rtol=1e-3, atol=tolerance):
            return "removing its channels changes more than setting them to zero: a shortcut or reshape counts on them"
        return ""


def _counts_channels(model: nn.Module, group: ChannelGroup) -> bool:
    """Whether a normalisation over channels sees them."""
    return any(isinstance(model.get_submodule(cut.layer), (nn.LayerNorm, nn.GroupNorm)) for cut in group.cuts)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _is_maker(module: object) -> bool:
    """A layer that makes channels of its own; a depthwise convolution only passes them on."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.groups == 1 or module.groups != module.in_channels
    return isinstance(module, nn.Linear)


def _probe(given: InputSpec) -> Tensor:
    return torch.from_numpy(given.random(0, 2))


def _output_sizes(model: nn.Module, probe: Tensor) -> dict[str, tuple[int, int]]:
    """Height and width of what each layer made in one run; layers that did not run are absent."""
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
