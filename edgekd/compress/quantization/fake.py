"""Fake quantization: a student's folded graph with simulated rounding, through which it can be trained.

It computes like the integer reference, in real units. Rounding has a straight-through gradient. Step sizes are trained
with the weights, those of weights by output channel: gradients of learned step size quantization (LSQ: Esser et al.
2020, arXiv 1902.08153), for logarithms of the steps. Zero points stay as calibrated, and so does the encoding of the
input, which files receive. Biases stay float: their int32 steps are far smaller than any other.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from edgekd.compress.quantization.calibrate import least_scales
from edgekd.compress.quantization.rules import points_of
from edgekd.compress.quantization.tables import on_grid, tables_of
from edgekd.distill.autotune import laid_out
from edgekd.ir.encoding import Encoding
from edgekd.students._protocol import Student
from edgekd.students.graph import Traced, call, execute_nodes, is_tensor, operator_of, trace

__all__ = ["FakeQuantized"]


class _Graph:
    """Graph and rounding points, shared by copies of a module."""

    def __init__(self, student: Student) -> None:
        annotations = student.annotations
        self.traced: Traced = trace(student, dynamic_batch=True, decomposed=False)
        self.floats = frozenset(annotations.float_operators)
        self.points = points_of(self.traced, self.floats)
        group = self.points.group
        self.encodings = {group[key]: found for key, found in annotations.activations.items() if key in group}
        self.learned = sorted(self.encodings.keys() - {group.get("input")})
        self.weights = sorted(annotations.weights)

    def __deepcopy__(self, _: object) -> _Graph:
        return self


class FakeQuantized(nn.Module):
    """Trainable module that maps normalised float32 (N, C, H, W) to the outputs of a calibrated student's integers.

    The student's precision must be static. ``core`` is its folded module with the trained weights; ``steps`` has the
    step sizes of activations, one for each group of tensors that share an encoding, ``weight_steps`` (channels,) those
    of weights, both as logarithms.
    """

    def __init__(self, student: Student) -> None:
        super().__init__()
        self._graph = _Graph(student)
        self._annotations = student.annotations
        self.core = copy.deepcopy(self._graph.traced.student.module).requires_grad_(True)
        given = self._graph.encodings.get(self._graph.points.group.get("input", ""))
        self.register_buffer("input_step", None if given is None else torch.tensor(given.scale).log())
        self.steps = nn.ParameterList(
            nn.Parameter(torch.tensor(self._graph.encodings[group].scale).log()) for group in self._graph.learned
        )
        self.weight_steps = nn.ParameterList(
            nn.Parameter(torch.tensor(student.annotations.weights[name].scale).log()) for name in self._graph.weights
        )

    def forward(self, inputs: Tensor) -> Any:
        """Return raw outputs in real units."""
        graph = self._graph
        steps = dict(zip(graph.learned, self.steps, strict=True))
        state: dict[str, Tensor] = dict(self.core.named_buffers())
        state |= dict(self.core.named_parameters(remove_duplicate=False))
        for name, step in zip(graph.weights, self.weight_steps, strict=True):
            state[name] = _weight(state[name], step, self._annotations.weights[name])

        def stored(key: str, real: Tensor) -> Tensor:
            group = graph.points.group.get(key)
            if group is None or group not in graph.encodings:
                return real
            return _rounded(real, steps.get(group, self.input_step), graph.encodings[group], real[0].numel())

        floats = dict[str, Tensor]()  # values of float islands before they are rounded

        def compute(node: fx.Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
            key = graph.traced.keys[node.name]
            if node.op == "placeholder":
                return stored(key, args[0])

            def read(source: fx.node.Argument, value: Any) -> Any:
                direct = isinstance(source, fx.Node) and (source.name, node.name) in graph.points.unrounded
                return floats[source.name] if isinstance(source, fx.Node) and direct else value

            result = call(node, *pytree.tree_map(read, (node.args, node.kwargs), (args, kwargs)))
            if key in graph.floats and key in graph.points.group:
                floats[node.name] = result
            joined = operator_of(node) == "cat" and key not in graph.floats
            passed = key in graph.points.passing or joined
            return result if passed or not is_tensor(node) else stored(key, result)

        return execute_nodes(graph.traced, inputs, compute, state)

    @torch.no_grad()
    def student(self) -> Student:
        """Return the student with the trained weights and step sizes; its integers are those simulated here."""
        graph, before = self._graph, self._annotations
        core = laid_out(copy.deepcopy(self.core), torch.device("cpu"), torch.contiguous_format).eval()
        of_group = {group: found.scale[0] for group, found in graph.encodings.items()}
        of_group |= {group: float(_size(step)) for group, step in zip(graph.learned, self.steps, strict=True)}
        scales = {key: of_group[group] for key, group in graph.points.group.items()}
        named = dict(core.named_parameters(remove_duplicate=False))
        least = least_scales(graph.traced, graph.points, scales, named)
        weights = dict(before.weights)
        for name, step in zip(graph.weights, self.weight_steps, strict=True):
            scale = _size(step).cpu()
            if name in least:
                scale = torch.maximum(scale.double(), least[name]).float()
            weights[name] = weights[name].but(scale=tuple(map(float, scale)))
        on_grid(core, {name: weights[name] for name in tables_of(graph.traced) & weights.keys()})
        activations = {key: found.but(scale=(scales[key],)) for key, found in before.activations.items()}
        return graph.traced.student.but(module=core, annotations=before.but(weights=weights, activations=activations))


def _size(step: Tensor) -> Tensor:
    return step.exp().clamp_min(torch.finfo(torch.float32).tiny)


def _weight(weight: Tensor, step: Tensor, encoding: Encoding) -> Tensor:
    """Quantize and dequantize a weight with one step for each channel."""
    along = [1] * weight.dim()
    along[encoding.axis or 0] = -1
    return _rounded(weight, step.view(along), encoding, weight.numel() // step.numel())


def _rounded(real: Tensor, step: Tensor, encoding: Encoding, values: int) -> Tensor:
    """Round to an encoding with this step. ``values`` is the number of values of one sample that share a step."""
    zero = encoding.zero_point[0]
    most = max(encoding.highest - zero, zero - encoding.lowest)
    share = _size(step) / math.sqrt(values * most)  # LSQ, section 2.2: many values pull at one step
    step = _size(step).detach() + (share - share.detach())
    inside = (real / step).clamp(encoding.lowest - zero, encoding.highest - zero)
    return (inside + (inside.round() - inside).detach()) * step
