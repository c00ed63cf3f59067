"""Channels that must be removed together, found through torch-pruning's dependency graph (Fang et al. 2023) and tried.

A dependency graph can be wrong: zero-padded shortcuts, fixed reshapes and the classifier itself look prunable to it.
So every group is pruned once on a copy, and must leave the model answering, in the same shape, exactly as it does with
those channels set to zero. A group that fails is left alone, and why is told with its layer's name.

torch-pruning keeps mutable defaults: nothing here relies on one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch_pruning
from torch import Tensor, nn

__all__ = ["ChannelGroup", "LeftOut", "channels_of", "find_groups", "importances", "prune_channels"]

_ERRORS = (RuntimeError, ValueError, IndexError, KeyError, TypeError, AttributeError, AssertionError)


class ChannelGroup(NamedTuple):
    """Channels that go together. ``makers`` are the layers that make them, by module name, in graph order."""

    makers: tuple[str, ...]
    channels: int
    size: tuple[int, int]  # height and width of what the first maker makes; (1, 1) for a linear layer
    multiple: int = 1  # what their number must be a multiple of: a GroupNorm's groups


class LeftOut(NamedTuple):
    """A layer that isn't pruned, and why."""

    layer: str
    reason: str


def find_groups(model: nn.Module, shape: Sequence[int]) -> tuple[list[ChannelGroup], list[LeftOut]]:
    """Groups of a model for inputs (C, H, W) that can be pruned, and the layers that can't.

    ``model`` is not changed. Both lists are in the order the layers are defined.
    """
    probe = _probe(shape)
    sizes = _output_sizes(model, probe)
    modules = dict(model.named_modules())
    position = {name: place for place, name in enumerate(modules)}
    proposed: list[tuple[str, ...]] = []
    seen: set[str] = set()
    traced = copy.deepcopy(model)
    graph, names = _graph(traced, probe)
    for name, module in traced.named_modules():
        if name in seen or name not in sizes or not _is_maker(module):
            continue
        together = sorted({name, *_makers_of(graph, module, names)}, key=position.__getitem__)
        seen.update(together)
        proposed.append(tuple(together))

    accepted: list[ChannelGroup] = []
    left_out: list[LeftOut] = []
    copies = _Copies(model, probe)
    for makers in proposed:
        channels = channels_of(modules[makers[0]])
        reason = copies.without_half(makers[0]) if channels > 1 else "it has a single channel"
        if not reason:
            accepted.append(ChannelGroup(makers, channels, sizes[makers[0]], copies.multiple))
            continue
        left_out.append(LeftOut(makers[0], reason))
        # the failed trial may have left the copies half pruned: start again from what has worked
        copies = _Copies(model, probe)
        for earlier in accepted:
            copies.without_half(earlier.makers[0])
    return accepted, left_out


def importances(model: nn.Module, shape: Sequence[int], groups: Sequence[ChannelGroup]) -> list[Tensor]:
    """A score a channel for each group: its squared weights, mean over the group's layers; float64 (channels,)."""
    graph, _ = _graph(model, _probe(shape))
    modules = dict(model.named_modules())
    kinds: list[type[nn.Module]] = [nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.LayerNorm]
    score = torch_pruning.importance.GroupMagnitudeImportance(
        p=2, group_reduction="mean", normalizer=None, target_types=kinds
    )
    return [score(_whole_group(graph, modules[group.makers[0]])).detach().double() for group in groups]


def prune_channels(model: nn.Module, shape: Sequence[int], keep: Mapping[str, Tensor]) -> None:
    """Take channels away in place. ``keep`` maps a maker of each group to the indices of its channels that stay."""
    graph, _ = _graph(model, _probe(shape))
    modules = dict(model.named_modules())
    for name, indices in keep.items():
        gone = sorted(set(range(channels_of(modules[name]))) - set(indices.tolist()))
        if gone:
            _group(graph, modules[name], gone).prune(record_history=False)


def channels_of(module: nn.Module) -> int:
    """How many channels a convolution or linear layer makes."""
    return int(module.out_features if isinstance(module, nn.Linear) else module.out_channels)  # type: ignore[arg-type]  # nn.Module's attributes are typed Tensor | Module


class _Copies:
    """Two copies of a model: one loses channels, the other has them set to zero. They must agree."""

    def __init__(self, model: nn.Module, probe: Tensor) -> None:
        self.pruned, self.masked = copy.deepcopy(model), copy.deepcopy(model)
        self.probe = probe
        self.graph, self.names = _graph(self.pruned, probe)
        self.multiple = 1  # of the group that was tried last

    def without_half(self, root: str) -> str:
        """Take every other channel of a group from both copies; why they differ then, or ``""``."""
        module = dict(self.pruned.named_modules())[root]
        try:
            whole = _whole_group(self.graph, module)
            norms = [dep.target.module for dep, _ in whole if isinstance(dep.target.module, nn.GroupNorm)]
            self.multiple = math.lcm(1, *(norm.num_groups for norm in norms))
            if norms and self.multiple == channels_of(module):
                return f"`{self.names[norms[0]]}` is a GroupNorm with a group for each of its channels"
            if norms and channels_of(module) // 2 % self.multiple:
                return f"`{self.names[norms[0]]}` is a GroupNorm whose {self.multiple} groups don't halve"
            group = _group(self.graph, module, list(range(0, channels_of(module), 2)))
            grouped = [self.names[dep.target.module] for dep, _ in group if _is_grouped(dep.target.module)]
            if grouped:
                return f"`{grouped[0]}` is a grouped convolution"
            inexact = self._zero(group)
            group.prune(record_history=False)
            with torch.no_grad():
                found, expected = self.pruned(self.probe), self.masked(self.probe)
        except _ERRORS as error:  # whatever a model's own code raises on channels it did not expect
            first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            return f"the model fails without some of its channels: {first_line}"
        if found.shape != expected.shape:
            return "its channels are the model's answer"
        tolerance = 1e-4 * (1 + float(expected.abs().max()))
        if not inexact and not torch.allclose(found, expected, rtol=1e-3, atol=tolerance):
            return "removing its channels changes more than setting them to zero: a shortcut or reshape counts on them"
        return ""

    def _zero(self, group: Any) -> bool:
        """Set a group's channels to zero in one copy; whether a normalisation over channels sees them.

        Such a layer counts its channels: zeroing and removing differ there, and only shapes can be compared.
        """
        modules = dict(self.masked.named_modules())
        inexact = False
        with torch.no_grad():
            for dep, indices in group:
                target = dep.target.module
                if target not in self.names or not self.graph.is_out_channel_pruning_fn(dep.handler):
                    continue
                inexact |= isinstance(target, (nn.LayerNorm, nn.GroupNorm))
                masked, gone = modules[self.names[target]], [int(index) for index in indices]
                for parameter in masked.parameters(recurse=False):
                    if parameter.dim() and len(parameter) > max(gone):  # a PReLU may have one for all channels
                        parameter[gone] = 0
                if isinstance(masked, nn.modules.batchnorm._BatchNorm) and not masked.affine:
                    assert masked.running_mean is not None
                    masked.running_mean[gone] = 0  # zeros come in, and zeros must come out
        return inexact


def _graph(model: nn.Module, probe: Tensor) -> tuple[Any, dict[nn.Module, str]]:
    """The dependency graph, and the module names. The graph follows gradients, so parameters must ask for them."""
    model.requires_grad_(True)
    with torch.inference_mode(False), torch.enable_grad():  # a caller may have switched them off
        graph = torch_pruning.DependencyGraph().build_dependency(
            model,
            probe,
            unwrapped_parameters={},
            customized_pruners={},
            ignored_layers=[],
            ignored_params=[],
            verbose=False,
        )
    return graph, {module: name for name, module in model.named_modules()}


def _group(graph: Any, module: nn.Module, indices: list[int]) -> Any:
    return graph.get_pruning_group(module, graph.get_pruner_of_module(module).prune_out_channels, indices)


def _whole_group(graph: Any, module: nn.Module) -> Any:
    return _group(graph, module, list(range(channels_of(module))))


def _makers_of(graph: Any, module: nn.Module, names: Mapping[nn.Module, str]) -> list[str]:
    try:
        group = _whole_group(graph, module)
    except _ERRORS:  # the trial meets the same error and tells it
        return []
    return [
        names[dep.target.module]
        for dep, _ in group
        if graph.is_out_channel_pruning_fn(dep.handler) and _is_maker(dep.target.module)
    ]


def _is_maker(module: object) -> bool:
    """A layer that makes channels of its own; a depthwise convolution only passes them on."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.groups == 1 or module.groups != module.in_channels
    return isinstance(module, nn.Linear)


def _is_grouped(module: object) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd) and 1 < module.groups < module.out_channels


def _probe(shape: Sequence[int]) -> Tensor:
    return torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))


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
