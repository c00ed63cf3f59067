"""Points of a network: places where inner activations (features) are read during a forward pass.

A point is a submodule's path and stands for that submodule's output. Two names are special: `penultimate`, the input of
the last linear layer, and `logits`, the network's output. A network's *stages* are its resolutions: for each the point
that completes last, after the whole stage (`each stage` in a recipe). With several heads only what all of them share
counts as a stage.

Tokens (N, T, C) are given channels first, as a map: for image patches (N, C, h, w), if the number of tokens fills a
grid with the image's aspect ratio, else (N, C, T, 1). The signal (N, C, T) of a 1-D convolution is (N, C, T, 1) too.
The channel axis is inferred from the last layer with weights; if both fit, there is no point. A transformer's *blocks*
are numbered sibling modules that output tokens of one shape.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import UnknownName
from edgekd.records import Record
from edgekd.tasks._protocol import InputSpec

__all__ = ["LOGITS", "PENULTIMATE", "Layout", "Point", "feeding", "layout_of", "tapped"]

LOGITS, PENULTIMATE = "logits", "penultimate"


class Point(Record):
    """Point: name and shape of its activation without the batch axis: a map (C, H, W) or a vector (C,)."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """All points of a network for one input shape, in order of completion."""

    points: Mapping[str, Point]
    stages: tuple[Point, ...]  # the first has the highest resolution
    classifier: str  # path of the linear layer whose output is the logits; empty if there is none
    blocks: tuple[Point, ...] = ()  # of a transformer, in order
    channels_last: frozenset[str] = frozenset()  # points of tokens, which come as (N, T, C)

    def at(self, name: str) -> Point:
        """Return the point of a name. Raises UnknownName."""
        if name not in self.points:
            raise UnknownName("point", name, self.points)
        return self.points[name]


def layout_of(module: nn.Module, given: InputSpec) -> Layout:
    """Find the points with one blank input. The module and its mode are unchanged."""
    found: dict[str, Tensor] = {}
    points: dict[str, Point] = {}
    tokens = set[str]()
    linear: tuple[str, nn.Linear, object] | None = None
    weighted: nn.Module | None = None  # the last layer with weights
    begun = False  # nothing before the first weights is a point: it would be the image itself

    def note(name: str, part: nn.Module, value: object) -> None:
        nonlocal begun, linear, weighted
        begun = begun or any(True for _ in part.parameters())
        weighted = part if _channels_of(part) else weighted
        if begun and isinstance(value, Tensor) and value.ndim in (2, 3, 4) and len(value) == 1:
            axis = 1 if value.ndim != 3 else _channel_axis(value, weighted)
            if axis is not None:
                found.pop(name, None)  # called again: it completes later
                points.pop(name, None)
                found[name], points[name] = value, Point(name=name, shape=_seen_shape(value, axis, given.shape))
                (tokens.add if axis == 2 else tokens.discard)(name)
        if isinstance(part, nn.Linear):
            linear = (name, part, value)

    handles = [
        part.register_forward_hook(lambda _m, _i, value, name=name, part=part: note(name, part, value))
        for name, part in module.named_modules()
        if name
    ]
    try:
        answer = _answered(module, given)
    finally:
        for handle in handles:
            handle.remove()
    blocks = tuple(points[name] for name in _blocks(points, tokens))
    maps = {name: value for name, value in found.items() if points[name].shape[1:] not in ((), (1, 1))}
    if not isinstance(answer, Tensor) or answer.ndim != 2:  # a head's own maps are no stages of the network
        trunk = _trunk(module, maps, given)
        maps = {name: value for name, value in maps.items() if name in trunk}
    stages = [points[name] for name in _latest(maps, points)]
    layout = Layout(points, tuple(stages), "", blocks, frozenset(tokens))
    if not isinstance(answer, Tensor):  # several heads: there are no logits of the whole network
        return layout
    points[LOGITS] = Point(name=LOGITS, shape=tuple(answer.shape[1:]))
    if linear is None or linear[2] is not answer:
        return layout
    points[PENULTIMATE] = Point(name=PENULTIMATE, shape=(linear[1].in_features,))
    return replace(layout, classifier=linear[0])


_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.Embedding)
_CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm)


def _channels_of(layer: nn.Module) -> int:
    """Return the number of output channels of a layer with weights; 0 for unknown kinds."""
    if isinstance(layer, nn.LayerNorm):
        return int(layer.normalized_shape[-1])
    names = ("out_features", "embedding_dim", "out_channels", "num_features")
    known = isinstance(layer, (*_CHANNELS_LAST, *_CHANNELS_FIRST))
    return next((int(getattr(layer, name)) for name in names if hasattr(layer, name)), 0) if known else 0


def _channel_axis(value: Tensor, layer: nn.Module | None) -> int | None:
    """Return the channel axis (1 or 2) of a value of three axes after a layer; None if it is ambiguous."""
    if layer is None:
        return None
    fits = [axis for axis in (1, 2) if value.shape[axis] == _channels_of(layer)]
    if isinstance(layer, _CHANNELS_LAST):
        fits = [axis for axis in fits if axis == 2]
    elif isinstance(layer, (nn.Conv1d, nn.BatchNorm1d)):
        fits = [axis for axis in fits if axis == 1]
    return fits[0] if len(fits) == 1 else None


def _seen_shape(value: Tensor, axis: int, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of a point.

    ``shape`` is the network input's: tokens fill a grid of its aspect ratio, or a row.
    """
    if value.ndim != 3:
        return tuple(value.shape[1:])
    channels, tokens = int(value.shape[axis]), int(value.shape[3 - axis])
    if axis == 2 and len(shape) == 3 and min(shape[1:]) > 1:
        height = math.isqrt(tokens * shape[1] // shape[2])
        if height and tokens % height == 0 and height * shape[2] == tokens // height * shape[1]:
            return channels, height, tokens // height
    return channels, tokens, 1


def _blocks(points: Mapping[str, Point], tokens: Collection[str]) -> list[str]:
    """Return the outermost numbered sibling modules that output tokens; none if their shapes differ."""
    rows: dict[str, list[str]] = {}
    for name in points:
        parent, _, number = name.rpartition(".")
        if name in tokens and number.isdigit():
            rows.setdefault(parent, []).append(name)
    outer = [row for parent, row in rows.items() if not any(parent.startswith(f"{other}.") for other in rows)]
    return outer[0] if len(outer) == 1 and len({points[name].shape for name in outer[0]}) == 1 else []


@contextmanager
def tapped(module: nn.Module, layout: Layout, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Record activations at some points during forward passes inside this context: the latest, by name.

    Shapes are (N, *the point's shape), or unchanged if that is empty. `logits` are not recorded: they are the output.
    Raises UnknownName.
    """
    seen: dict[str, Tensor] = {}
    known = dict(module.named_modules())

    def as_seen(name: str, value: Tensor) -> Tensor:
        shape = layout.points[name].shape
        if value.ndim != 3 or not shape:
            return value
        channels = value.transpose(1, 2) if name in layout.channels_last else value
        return channels.reshape(len(value), *shape)

    def after(name: str) -> None:
        handles.append(
            known[name].register_forward_hook(lambda _m, _i, value: seen.update({name: as_seen(name, value)}))
        )

    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        for name in dict.fromkeys(names):
            if layout.at(name).name == PENULTIMATE:
                before = known[layout.classifier]
                handles.append(
                    before.register_forward_pre_hook(lambda _m, inputs: seen.update({PENULTIMATE: inputs[0]}))
                )
            elif name != LOGITS:
                after(name)
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def feeding(module: nn.Module, layout: Layout, name: str, given: InputSpec) -> frozenset[str]:
    """Return the names of the parameters on which a point's activation depends.

    Found by following the gradient, so that code between the module's parts is covered too. Raises UnknownName.
    """
    with torch.inference_mode(False), torch.enable_grad():  # a caller may have switched them off
        probe = copy.deepcopy(module).eval().requires_grad_(True)
        with tapped(probe, layout, [name]) as seen:
            seen[LOGITS] = _on_own_device(probe, given)
        names, parameters = zip(*probe.named_parameters(), strict=True)
        found = torch.autograd.grad(seen[name].sum(), parameters, allow_unused=True)
    return frozenset(own for own, gradient in zip(names, found, strict=True) if gradient is not None)


def _latest(maps: Mapping[str, Tensor], points: Mapping[str, Point]) -> list[str]:
    """Return for each resolution the point that completes last, highest resolution first."""
    latest: dict[tuple[int, ...], tuple[Tensor, str]] = {}
    for name, value in maps.items():
        size = points[name].shape[1:]
        if size not in latest or latest[size][0] is not value:  # a parent returns its last child's output
            latest[size] = (value, name)
    return [name for _, (_, name) in sorted(latest.items(), key=lambda item: -item[0][0] * item[0][1])]


def _trunk(module: nn.Module, names: Collection[str], given: InputSpec) -> set[str]:
    """Return the points on which every output depends, and which are not outputs themselves."""
    points = {name: Point(name=name, shape=()) for name in names}  # seen as they come
    with torch.inference_mode(False), torch.enable_grad():
        probe = copy.deepcopy(module).eval().requires_grad_(True)
        with tapped(probe, Layout(points, (), ""), list(names)) as seen:
            answer = _on_own_device(probe, given)
        answers = [output for output in _tensors(answer) if output.requires_grad]
        inner = {name: seen[name] for name in names if seen[name].requires_grad}
        found = {name for name, value in inner.items() if not any(value is output for output in answers)}
        for output in answers:
            looked = sorted(found)
            if not looked:
                break
            gradients = torch.autograd.grad(
                output.sum(), [inner[name] for name in looked], retain_graph=True, allow_unused=True
            )
            found = {name for name, gradient in zip(looked, gradients, strict=True) if gradient is not None}
    return found


def _tensors(answer: object) -> list[Tensor]:
    """Return all tensors of a nested output."""
    if isinstance(answer, Tensor):
        return [answer]
    if isinstance(answer, Mapping):
        return [tensor for value in answer.values() for tensor in _tensors(value)]
    if isinstance(answer, (tuple, list)):
        return [tensor for value in answer for tensor in _tensors(value)]
    return []


def _on_own_device(module: nn.Module, given: InputSpec) -> Any:
    first = next(module.parameters(), None)
    return module(torch.from_numpy(given.example()).to(None if first is None else first.device))


def _answered(module: nn.Module, given: InputSpec) -> object:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            answer = _on_own_device(module, given)
    finally:
        for part, training in modes:
            part.training = training
    return answer
