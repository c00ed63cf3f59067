"""Barriers for the TFLite converter, which merges constants into the weights beside them.

It would fold a LayerNorm's scale, or attention's, into a linear layer whose weights have encodings. So each value that
crosses the border of a float island is multiplied by a second input of the model while it is converted; so is the input
of layers whose weights are stored in 8 bits. Afterwards the multiplications and that input are taken out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from edgekd.errors import ConfigurationError
from edgekd.export.encoded import float_nodes
from edgekd.export.tflite.flatbuffer import add_operator, add_reshape, operator_name
from edgekd.students.graph import Traced, call, execute_nodes, spec_of

__all__ = ["Guarded", "read_by", "remove_barriers"]


class Guarded(nn.Module):
    """Program of a student with a barrier behind each value that crosses a border, and behind the nodes ``apart``.

    Takes (images, one).
    """

    def __init__(self, traced: Traced, apart: AbstractSet[str] = frozenset()) -> None:
        super().__init__()
        self._traced, self._borders = traced, _borders(traced) | apart

    def forward(self, images: Tensor, one: Tensor) -> Any:
        """Outputs of the program. ``one`` is a tensor (1,) of 1."""

        def compute(node: fx.Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
            value = args[0] if node.op == "placeholder" else call(node, args, kwargs)
            return value * one if node.name in self._borders else value

        return execute_nodes(self._traced, images, compute)


def remove_barriers(model: Any) -> None:
    """Remove the multiplications by the second input from a converted model, and that input."""
    graph = model.subgraphs[0]
    images, one = (int(index) for index in graph.inputs)
    if [int(size) for size in graph.tensors[one].shape] != [1]:
        images, one = one, images
    ones = {one}  # the second input in several shapes
    through: dict[int, int] = {}  # a barrier's result -> what it passes on
    kept = []
    for operator in list(graph.operators):
        operator.inputs = np.asarray([through.get(int(index), int(index)) for index in operator.inputs], np.int32)
        given, name = [int(index) for index in operator.inputs], operator_name(model, operator)
        if ones.isdisjoint(given):
            kept.append(operator)
        elif name in ("RESHAPE", "BROADCAST_TO"):
            ones.add(int(operator.outputs[0]))
        elif name == "MUL":
            passed, result = given[0] if given[1] in ones else given[1], int(operator.outputs[0])
            fused = int(operator.builtinOptions.fusedActivationFunction)
            if fused:  # a clamp in float behind an integer operator stands by itself then
                kept.append(_operator(model, _ACTIVATIONS[fused], [passed], result))
            elif len(graph.tensors[passed].shape) == len(graph.tensors[result].shape):
                through[result] = passed
            else:  # the product has given an axis of length 1 back
                kept.append(_reshape(model, passed, result))
        else:
            raise ConfigurationError.one(
                f"the TFLite converter has merged {name} into what is beside it, so that it can't be left in float",
                "use dynamic-int8, or another runtime",
            )
    graph.operators = kept
    graph.outputs = np.asarray([through.get(int(index), int(index)) for index in graph.outputs], np.int32)
    graph.inputs = np.asarray([images], np.int32)
    for signature in model.signatureDefs or []:
        signature.inputs = [entry for entry in signature.inputs if int(entry.tensorIndex) == images]
        for entry in signature.outputs:
            entry.tensorIndex = through.get(int(entry.tensorIndex), int(entry.tensorIndex))


def _reshape(model: Any, passed: int, result: int) -> Any:
    operators = model.subgraphs[0].operators
    add_reshape(model, passed, result, at=len(operators))
    return operators.pop()


def _operator(model: Any, name: str, inputs: list[int], result: int, options: Any = None) -> Any:
    operators = model.subgraphs[0].operators
    add_operator(model, name, inputs, [result], at=len(operators), options=options)
    return operators.pop()


_ACTIVATIONS: Mapping[int, str] = {1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH"}
"""TFLite's fused activation functions (schema.fbs, ``ActivationFunctionType``)."""


def read_by(traced: Traced, weights: AbstractSet[str]) -> frozenset[str]:
    """Nodes whose values are read by the operators with these weights."""
    found = set[str]()
    for node in traced.program.graph.nodes:
        if node.op == "call_function" and spec_of(node).weighted and len(node.args) > 1:
            source, weight = node.args[0], node.args[1]
            if isinstance(weight, fx.Node) and traced.parameters.get(weight.name) in weights:
                found |= {source.name} if isinstance(source, fx.Node) and source.op == "call_function" else set()
    return frozenset(found)


def _borders(traced: Traced) -> frozenset[str]:
    """Nodes with encodings that are computed in float, or computed in integers and read in float."""
    encoded, floats = traced.student.annotations.activations, float_nodes(traced)
    return frozenset(
        node.name
        for node in traced.program.graph.nodes
        if node.op == "call_function"
        and traced.keys.get(node.name) in encoded
        and (node.name in floats or not floats.isdisjoint(_readers(node, floats)))
    )


def _readers(node: fx.Node, floats: AbstractSet[str]) -> Iterator[str]:
    """Names of the readers of a value, through operators that only move it."""
    for user in node.users:
        if user.op == "call_function" and user.name not in floats and spec_of(user).transparent:
            yield from _readers(user, floats)
        else:
            yield str(user.name)
