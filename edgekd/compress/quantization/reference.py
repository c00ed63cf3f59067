"""Integer reference: a torch module that simulates integer kernels, to compare exported files with.

Static precisions: ``q_out = round(M (sum (q_in - z_in) q_w + q_bias)) + z_out`` with ``M = s_in s_w / s_out`` (Jacob et
al. 2018, eq. 7), rounded half to even and clamped; ReLU is that clamp. Sums of products are exact in float32 up to
2**24; with 16-bit activations they exceed it, with an error far below one step of the output. Runtimes that round ties
the other way differ by one such step. An operator of a float island reads results of integer operators dequantized,
those of other float operators before they are rounded, and its float weights.
Weights-only precisions compute in float32 on the rounded weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from edgekd.artefacts import Backend
from edgekd.compress.quantization.rules import fused_sums, points_of
from edgekd.compress.quantization.weights import weight_integers, weight_scales
from edgekd.errors import ConfigurationError
from edgekd.ir.encoding import Encoding
from edgekd.students._protocol import Student
from edgekd.students.graph import Traced, call, execute_nodes, is_tensor, operator_of, outputs_in, trace

__all__ = ["reference_module"]


def reference_module(student: Student, backend: Backend | None = None) -> nn.Module:
    """Return a module in eval mode that maps normalised float32 (N, C, H, W) to the student's outputs, in float32.

    With a ``backend`` it rounds as that runtime's kernels do where they are known to differ (OpenVINO). Raises
    ConfigurationError if the annotations don't fit the student's graph.
    """
    traced = trace(student, dynamic_batch=True, decomposed=False)
    if student.annotations.precision.is_static:
        return IntegerReference(traced, fuses_sums=backend is not None and backend.runtime == "openvino").eval()
    module = traced.student.module
    weights = dict(module.named_parameters())
    for name, encoding in student.annotations.weights.items():
        if name not in weights:
            raise _stale(f"there is no weight `{name}`")
        with torch.no_grad():
            weights[name].copy_(weight_integers(weights[name], encoding) * weight_scales(weights[name], encoding))
    return module.eval()


class IntegerReference(nn.Module):
    """Runs a traced graph on integers.

    Each encoded tensor is held as float32 less its zero point, so that padding is zero; other tensors, in float
    islands, are unchanged. ``fuses_sums``: results of convolutions are added as OpenVINO does (`fused_sums`).
    """

    def __init__(self, traced: Traced, *, fuses_sums: bool = False) -> None:
        super().__init__()
        self._traced = traced
        annotations = traced.student.annotations
        self._floats = frozenset(annotations.float_operators)
        self._points = points_of(traced, self._floats)
        self._added = fused_sums(traced, self._points) if fuses_sums else {}
        self._clipped = frozenset(self._added.values())
        of_group = {
            self._points.group[key]: found
            for key, found in annotations.activations.items()
            if key in self._points.group
        }
        self._activations = {key: of_group[group] for key, group in self._points.group.items() if group in of_group}
        missing = sorted(set(self._points.group) - set(self._activations))
        missing += sorted(set(self._points.users) - set(annotations.weights))
        if missing:
            raise _stale(f"there is no encoding for {', '.join(missing[:4])}")
        self._state = {name: tensor.detach() for name, tensor in traced.student.module.state_dict().items()}
        self._weights, self._scales = {}, {}
        for name in self._points.users:
            self._weights[name] = weight_integers(self._state[name], annotations.weights[name])
            self._scales[name] = torch.tensor(annotations.weights[name].scale, dtype=torch.float32)

    @torch.no_grad()
    def forward(self, inputs: Tensor) -> Any:
        """Return raw outputs, dequantized."""
        answers = execute_nodes(self._traced, inputs, partial(self._compute, {}))
        leaves, shape = pytree.tree_flatten(answers)
        nodes = outputs_in(self._traced.program)
        scaled = [leaf * self._scale(node) for leaf, node in zip(leaves, nodes, strict=True)]
        return pytree.tree_unflatten(scaled, shape)

    @torch.no_grad()
    def values(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return the value of every float tensor by key, in order, for normalised (N, C, H, W).

        Integers are dequantized; the result of an operator of a float island is that before it is quantized.
        """
        found, floats = dict[str, Tensor](), dict[str, Tensor]()

        def compute(node: fx.Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
            key, result = self._traced.keys[node.name], self._compute(floats, node, args, kwargs)
            if is_tensor(node):
                in_float = key in self._floats
                found[key] = self._real(floats, node, args, kwargs) if in_float else self._dequantized(node, result)
            return result

        execute_nodes(self._traced, inputs, compute)
        return found

    def _compute(
        self, floats: dict[str, Tensor], node: fx.Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Return a node's value, rounded where it is encoded; ``floats`` collects those of islands before that."""
        key = self._traced.keys[node.name]
        if node.op == "placeholder":
            return self._stored(key, args[0])
        if key in self._points.passing or (operator_of(node) == "cat" and key not in self._floats):
            return call(node, args, kwargs)  # passed on as they are
        weighted = key in self._points.weights
        result = self._products(node, key, args) if weighted else self._real(floats, node, args, kwargs)
        if node.name in self._clipped:
            floats[node.name] = _clipped(result, self._activations[key])
        elif key in self._floats and key in self._activations:
            floats[node.name] = result
        return self._stored(key, result) if is_tensor(node) else result

    def _real(self, floats: dict[str, Tensor], node: fx.Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return an operator's result on dequantized values, or on those of ``floats`` that it reads unrounded."""

        def read(source: fx.node.Argument, value: Any) -> Any:
            if isinstance(source, fx.Node) and (source.name, node.name) in self._points.unrounded:
                return floats[source.name]
            if isinstance(source, fx.Node) and self._added.get(node.name) == source.name:
                return floats.pop(source.name)  # its only reader
            return self._dequantized(source, value)

        return call(node, *pytree.tree_map(read, (node.args, node.kwargs), (args, kwargs)))

    def _stored(self, key: str, real: Tensor) -> Tensor:
        """Round a value to the integers of its encoding, if it has one."""
        return _rounded(real, self._activations[key]) if key in self._activations else real

    def _dequantized(self, source: fx.node.Argument, value: Any) -> Any:
        return value * self._scale(source) if isinstance(source, fx.Node) and is_tensor(source) else value

    def _products(self, node: fx.Node, key: str, args: tuple[Any, ...]) -> Tensor:
        """Return the sum of products and the int32 bias, in real units."""
        weight, bias = self._points.weights[key]
        scale = self._scales[weight] * self._scale(node.args[0])
        sums: Tensor = call(node, (args[0], self._weights[weight], None, *args[3:]), {})
        along = [1] * sums.dim()
        along[1 if operator_of(node) == "conv" else -1] = -1
        if bias:
            stored = torch.round(self._state[bias].double() / scale.double()).clamp(-(2.0**31), 2.0**31 - 1)
            sums.add_(stored.float().view(along))
        return sums.mul_(scale.view(along))

    def _scale(self, node: fx.node.Argument) -> float:
        """Return the scale of a node's value: 1 if it is real, in a float island or before its ReLU."""
        key = self._traced.keys.get(node.name) if isinstance(node, fx.Node) else None
        return self._activations[key].scale[0] if key in self._activations else 1.0


def _rounded(value: Tensor, encoding: Encoding) -> Tensor:
    return (value / encoding.scale[0]).round_().clamp_(*_range(encoding))


def _clipped(value: Tensor, encoding: Encoding) -> Tensor:
    lowest, highest = _range(encoding)
    return value.clamp(lowest * encoding.scale[0], highest * encoding.scale[0])


def _range(encoding: Encoding) -> tuple[int, int]:
    zero = encoding.zero_point[0]
    return encoding.lowest - zero, encoding.highest - zero


def _stale(reason: str) -> ConfigurationError:
    return ConfigurationError.one(
        f"the annotations don't fit the student: {reason}", "calibrate it again: its graph has changed since"
    )
