"""Channel cuts: positions of a group's channels in a model's layers, their scores and their removal.

A cut maps positions along one side of a layer to channels of the group. Found once in the whole model, it applies to
every smaller one, so nothing is traced to build an arch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Cut", "channels_of", "scores_of", "silence", "take_away"]

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.PReLU)


class Cut(NamedTuple):
    """Positions along a layer's output or input channels, and the group's channel at each."""

    layer: str  # by module name
    makes: bool
    positions: tuple[int, ...]
    roots: tuple[int, ...]


def channels_of(module: nn.Module) -> int:
    """Return the number of output channels of a convolution or linear layer."""
    return int(module.out_features if isinstance(module, nn.Linear) else module.out_channels)  # type: ignore[arg-type]  # nn.Module's attributes are typed Tensor | Module


def scores_of(modules: Mapping[str, nn.Module], cuts: Iterable[Cut], channels: int) -> Tensor:
    """Return a score for each channel: its squared weights, mean over the layers in ``modules``; float64 (channels,).

    Depthwise convolutions and layers without weights don't count.
    """
    total, layers = torch.zeros(channels, dtype=torch.float64), 0
    for cut in cuts:
        weight = _rows(modules[cut.layer], cut.makes) if cut.layer in modules else None
        if weight is not None:
            squared = weight.detach().double().square().flatten(1).sum(1)
            total.scatter_add_(0, torch.tensor(cut.roots), squared[list(cut.positions)])
            layers += 1
    return total / max(1, layers)


def take_away(model: nn.Module, gone: Iterable[tuple[Sequence[Cut], Iterable[int]]]) -> None:
    """Remove channels of several groups from a model in place: the cuts of each, and its removed channels.

    Layers that the model no longer has are skipped. Raises what a layer raises that can't be cut so.
    """
    modules = dict(model.named_modules())
    lost: dict[tuple[str, bool], set[int]] = {}
    for cuts, channels in gone:
        out = set(channels)
        for cut in cuts if out else ():
            if cut.layer in modules:
                places = {place for place, root in zip(cut.positions, cut.roots, strict=True) if root in out}
                lost.setdefault((cut.layer, cut.makes), set()).update(places)
    for (layer, makes), places in lost.items():
        _cut(modules[layer], makes, places)


@torch.no_grad()
def silence(model: nn.Module, gone: Iterable[tuple[Sequence[Cut], Iterable[int]]]) -> None:
    """Set channels to zero in place wherever a layer outputs them: `take_away` must leave the same outputs."""
    modules = dict(model.named_modules())
    for cuts, channels in gone:
        out = set(channels)
        for cut in cuts:
            layer = modules[cut.layer]
            places = [place for place, root in zip(cut.positions, cut.roots, strict=True) if root in out]
            if not places:  # a layer that has other channels of the group
                continue
            transposed = isinstance(layer, nn.Embedding) or bool(getattr(layer, "transposed", False))
            for parameter in layer.parameters(recurse=False) if cut.makes else ():
                side = 1 if transposed and parameter.dim() > 1 else 0
                side = parameter.dim() - 1 if isinstance(layer, _NORMS) else side
                if parameter.dim() and parameter.shape[side] > max(places):  # a PReLU may have one for all channels
                    parameter.index_fill_(side, torch.tensor(places), 0.0)
            if cut.makes and isinstance(layer, nn.modules.batchnorm._BatchNorm) and not layer.affine:
                assert layer.running_mean is not None
                layer.running_mean[places] = 0  # zeros come in, and zeros must come out


def _cut(layer: nn.Module, makes: bool, gone: set[int]) -> None:
    if isinstance(layer, nn.modules.conv._ConvNd):
        depthwise = layer.groups > 1
        side = 0 if depthwise or makes != layer.transposed else 1
        kept = _kept(layer.out_channels if makes or depthwise else layer.in_channels, gone)
        layer.weight = _slice(layer.weight, side, kept)
        if makes or depthwise:
            layer.out_channels = len(kept)
            layer.bias = None if layer.bias is None else _slice(layer.bias, 0, kept)
        if not makes or depthwise:
            layer.in_channels = len(kept)
        if depthwise:
            layer.groups = len(kept)
    elif isinstance(layer, nn.Linear):
        kept = _kept(layer.out_features if makes else layer.in_features, gone)
        layer.weight = _slice(layer.weight, 0 if makes else 1, kept)
        if makes:
            layer.out_features = len(kept)
            layer.bias = None if layer.bias is None else _slice(layer.bias, 0, kept)
        else:
            layer.in_features = len(kept)
    elif isinstance(layer, nn.Embedding):
        kept = _kept(layer.embedding_dim, gone)
        layer.weight, layer.embedding_dim = _slice(layer.weight, 1, kept), len(kept)
    elif isinstance(layer, _NORMS):
        _cut_norm(layer, gone)
    else:
        raise TypeError(f"a {type(layer).__name__} can't be cut")


def _cut_norm(layer: nn.Module, gone: set[int]) -> None:
    if isinstance(layer, nn.LayerNorm):
        kept = _kept(layer.normalized_shape[-1], gone)
        layer.normalized_shape = (*layer.normalized_shape[:-1], len(kept))
    elif isinstance(layer, nn.PReLU):
        if layer.num_parameters == 1:
            return
        kept = _kept(layer.num_parameters, gone)
        layer.num_parameters = len(kept)
    elif isinstance(layer, nn.GroupNorm):
        kept = _kept(layer.num_channels, gone)
        layer.num_channels = len(kept)
    else:
        assert isinstance(layer, nn.modules.batchnorm._NormBase)
        kept = _kept(layer.num_features, gone)
        layer.num_features = len(kept)
        for name in ("running_mean", "running_var"):
            statistic = getattr(layer, name)
            if statistic is not None:
                setattr(layer, name, statistic[kept])
    for name, parameter in list(layer.named_parameters(recurse=False)):
        setattr(layer, name, _slice(parameter, parameter.dim() - 1, kept))


def _kept(count: int, gone: set[int]) -> list[int]:
    return [place for place in range(count) if place not in gone]


def _slice(parameter: Tensor, side: int, kept: Sequence[int]) -> nn.Parameter:
    places = torch.tensor(kept, device=parameter.device)
    return nn.Parameter(parameter.detach().index_select(side, places), requires_grad=parameter.requires_grad)


def _rows(layer: nn.Module, makes: bool) -> Tensor | None:
    """Return weights with one side's channels first, at least two dimensions; None for a layer that isn't scored."""
    if isinstance(layer, nn.modules.conv._ConvNd):
        if layer.groups > 1:
            return None
        return layer.weight if makes != layer.transposed else layer.weight.transpose(0, 1)
    if isinstance(layer, nn.Linear):
        return layer.weight if makes else layer.weight.transpose(0, 1)
    if isinstance(layer, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)) and isinstance(layer.weight, Tensor):
        return layer.weight.unsqueeze(-1) if layer.weight.dim() == 1 else None
    return None
