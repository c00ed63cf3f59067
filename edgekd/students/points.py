"""Points of a network: where its inner activations can be seen while it computes.

A point is a submodule's path and stands for that submodule's output. Two names are made up: `penultimate`, what the
last linear layer takes, and `logits`, the network's answer. A network's *stages* are its resolutions: of each the
point that completes last, with all of the stage behind it (`each stage` in a recipe). Of a network with several heads
only what all of them share counts as a stage.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import UnknownName
from edgekd.records import Record

__all__ = ["LOGITS", "PENULTIMATE", "Layout", "Point", "feeding", "layout_of", "tapped"]

LOGITS, PENULTIMATE = "logits", "penultimate"


class Point(Record):
    """A name and the shape of what is seen there, without the batch axis: a map (C, H, W) or a vector (C,)."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """All points of a network for one input shape, in the order in which they complete."""

    points: Mapping[str, Point]
    stages: tuple[Point, ...]  # the first has the highest resolution
    classifier: str  # path of the linear layer that gives the answer; empty where none does

    def at(self, name: str) -> Point:
        """The point of a name. Raises UnknownName."""
        if name not in self.points:
            raise UnknownName("point", name, self.points)
        return self.points[name]


def layout_of(module: nn.Module, shape: Sequence[int]) -> Layout:
    """Found by answering one input of a shape (C, H, W). The module and its mode are left as they were."""
    found: dict[str, Tensor] = {}
    linear: tuple[str, nn.Linear, object] | None = None
    begun = False  # nothing before the first weights is a point: it would be the image itself

    def note(name: str, part: nn.Module, value: object) -> None:
        nonlocal begun, linear
        begun = begun or any(True for _ in part.parameters())
        if begun and isinstance(value, Tensor) and value.ndim in (2, 4) and len(value) == 1:
            found.pop(name, None)  # called again: it completes later
            found[name] = value
        if isinstance(part, nn.Linear):
            linear = (name, part, value)

    handles = [
        part.register_forward_hook(lambda _m, _i, value, name=name, part=part: note(name, part, value))
        for name, part in module.named_modules()
        if name
    ]
    try:
        answer = _answered(module, shape)
    finally:
        for handle in handles:
            handle.remove()
    points = {name: Point(name=name, shape=tuple(value.shape[1:])) for name, value in found.items()}
    maps = {name: value for name, value in found.items() if value.ndim == 4 and value.shape[2:] != (1, 1)}
    if not isinstance(answer, Tensor) or answer.ndim != 2:  # a head's own maps are no stages of the network
        trunk = _trunk(module, points, maps, shape)
        maps = {name: value for name, value in maps.items() if name in trunk}
    stages = [points[name] for name in _latest(maps)]
    if not isinstance(answer, Tensor):  # several heads: each has answers of its own, none are the network's
        return Layout(points, tuple(stages), "")
    points[LOGITS] = Point(name=LOGITS, shape=tuple(answer.shape[1:]))
    if linear is None or linear[2] is not answer:
        return Layout(points, tuple(stages), "")
    points[PENULTIMATE] = Point(name=PENULTIMATE, shape=(linear[1].in_features,))
    return Layout(points, tuple(stages), linear[0])


@contextmanager
def tapped(module: nn.Module, layout: Layout, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """What is seen at some points whenever the module computes inside the context: the latest, by name.

    `logits` are the caller's own to see. Raises UnknownName.
    """
    seen: dict[str, Tensor] = {}
    known = dict(module.named_modules())

    def after(name: str) -> None:
        handles.append(known[name].register_forward_hook(lambda _m, _i, value: seen.update({name: value})))

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


def feeding(module: nn.Module, layout: Layout, name: str, shape: Sequence[int]) -> frozenset[str]:
    """Names of the parameters on which depends what is seen at a point, for inputs of a shape (C, H, W).

    Found by following the gradient, so whatever the module's code does between its parts is seen too. Raises
    UnknownName.
    """
    with torch.inference_mode(False), torch.enable_grad():  # a caller may have switched them off
        probe = copy.deepcopy(module).eval().requires_grad_(True)
        with tapped(probe, layout, [name]) as seen:
            seen[LOGITS] = _on_own_device(probe, shape)
        names, parameters = zip(*probe.named_parameters(), strict=True)
        found = torch.autograd.grad(seen[name].sum(), parameters, allow_unused=True)
    return frozenset(own for own, gradient in zip(names, found, strict=True) if gradient is not None)


def _latest(maps: Mapping[str, Tensor]) -> list[str]:
    """Of each resolution the point that completes last, the highest resolution first."""
    latest: dict[tuple[int, ...], tuple[Tensor, str]] = {}
    for name, value in maps.items():
        size = tuple(value.shape[2:])
        if size not in latest or latest[size][0] is not value:  # a parent hands on what its last child gave
            latest[size] = (value, name)
    return [name for _, (_, name) in sorted(latest.items(), key=lambda item: -item[0][0] * item[0][1])]


def _trunk(module: nn.Module, points: Mapping[str, Point], names: Collection[str], shape: Sequence[int]) -> set[str]:
    """Those of some points on which every answer depends, and which are no answer themselves."""
    with torch.inference_mode(False), torch.enable_grad():
        probe = copy.deepcopy(module).eval().requires_grad_(True)
        with tapped(probe, Layout(points, (), ""), list(names)) as seen:
            answer = _on_own_device(probe, shape)
        answers = [told for told in _tensors(answer) if told.requires_grad]
        inner = {name: seen[name] for name in names if seen[name].requires_grad}
        found = {name for name, value in inner.items() if not any(value is told for told in answers)}
        for told in answers:
            looked = sorted(found)
            if not looked:
                break
            gradients = torch.autograd.grad(
                told.sum(), [inner[name] for name in looked], retain_graph=True, allow_unused=True
            )
            found = {name for name, gradient in zip(looked, gradients, strict=True) if gradient is not None}
    return found


def _tensors(answer: object) -> list[Tensor]:
    """All of them, whatever they come in."""
    if isinstance(answer, Tensor):
        return [answer]
    if isinstance(answer, Mapping):
        return [tensor for value in answer.values() for tensor in _tensors(value)]
    if isinstance(answer, (tuple, list)):
        return [tensor for value in answer for tensor in _tensors(value)]
    return []


def _on_own_device(module: nn.Module, shape: Sequence[int]) -> Any:
    first = next(module.parameters(), None)
    return module(torch.zeros((1, *shape), device=None if first is None else first.device))


def _answered(module: nn.Module, shape: Sequence[int]) -> object:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            answer = _on_own_device(module, shape)
    finally:
        for part, training in modes:
            part.training = training
    return answer
