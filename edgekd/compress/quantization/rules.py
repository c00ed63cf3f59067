"""Rounding rules: which tensors of a graph have their own encoding, which share one, which never exist as integers.

One rule for all runtimes: the result of a convolution, linear layer or sum is rounded once, after the ReLU that is its
only reader (kernels fuse them); operators that only move values (reshape, padding, maximum), and an average over
windows, keep their input's encoding; the parts of a concatenation share one. Means over the image have their own. If
operators compute in float (`placement`), a tensor has an encoding only if an integer operator reads or writes it, and
float operators read a float operator's result before it is rounded.

OpenVINO computes a convolution and the sum behind it in one kernel, which clips the convolution's result to its range
and doesn't round it (`fused_sums`; found in 2026.4.1 by comparing every value).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from torch import fx

from edgekd.ir.operators import weight_axis
from edgekd.students.graph import Traced, is_tensor, operator_of, spec_of

__all__ = ["RoundingPoints", "fused_sums", "is_clamp_at_zero", "points_of", "sources_of"]


@dataclass(frozen=True)
class RoundingPoints:
    """Rounding points of a traced graph."""

    group: Mapping[str, str]  # key of every encoded tensor -> key of the tensor that stands for its group
    passing: frozenset[str]  # keys of operators that only move values
    fused: frozenset[str]  # keys of operators whose result is rounded only after the ReLU behind them
    weights: Mapping[str, tuple[str, str]]  # key of a weighted operator -> names of its weight and bias ("" for none)
    users: Mapping[str, tuple[str, ...]]  # parameter name -> keys of the operators that use it as their weight
    axes: Mapping[str, int]  # parameter name -> axis of its output channels
    unrounded: frozenset[tuple[str, str]]  # nodes in float, and others that read their result before it is rounded


def points_of(traced: Traced, floats: AbstractSet[str] = frozenset()) -> RoundingPoints:
    """Apply the rules to a graph. ``floats`` are the keys of operators that compute in float."""
    nodes = [node for node in traced.program.graph.nodes if node.name in traced.keys]
    key = {node: traced.keys[node.name] for node in nodes}
    integer = [node for node in nodes if node.op == "call_function" and key[node] not in floats]
    here = set(integer)
    fused = {node for node in integer if spec_of(node).fuses_relu and _only_relu_behind(node) in here}
    parent: dict[str, str] = {key[node]: key[node] for node in nodes if node not in fused and is_tensor(node)}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for node in integer:
        if spec_of(node).encodes in ("input", "shared") and is_tensor(node):
            for source in sources_of(node):
                if source in key and key[source] in parent:
                    parent[root(key[node])] = root(key[source])
    encoded = {
        root(key[tensor])
        for node in integer
        if is_tensor(node) and not spec_of(node).transparent
        for tensor in (node, *sources_of(node))
        if key.get(tensor) in parent
    }
    axes = _output_axes(nodes, traced)
    weights, users = {}, dict[str, tuple[str, ...]]()
    for node in integer:
        if spec_of(node).weighted:
            weight, bias = _parameter(node, 1, traced), _parameter(node, 2, traced)
            if weight not in axes:
                continue
            weights[key[node]] = (weight, bias)
            users[weight] = (*users.get(weight, ()), key[node])
    passing = {key[node] for node in integer if spec_of(node).transparent}
    group = {name: root(name) for name in parent if root(name) in encoded}
    return RoundingPoints(
        group=group,
        passing=frozenset(passing),
        fused=frozenset(key[node] for node in fused),
        weights=weights,
        users=users,
        axes=axes,
        unrounded=frozenset(
            (node.name, user.name)
            for node in nodes
            for user in node.users
            if key[node] in floats and key[node] in group and key.get(user) in floats
        ),
    )


def fused_sums(traced: Traced, points: RoundingPoints) -> dict[str, str]:
    """Return the integer sums that OpenVINO computes in a convolution's kernel: node names, sum -> operand."""
    integer = (points.group.keys() | points.fused) - set(traced.student.annotations.float_operators)
    sums = [node for node in traced.program.graph.nodes if operator_of(node) == "add"]
    found = {
        node.name: _added_in_kernel(node, traced, points) for node in sums if traced.keys.get(node.name) in integer
    }
    return {name: operand.name for name, operand in found.items() if operand is not None}


def _added_in_kernel(node: fx.Node, traced: Traced, points: RoundingPoints) -> fx.Node | None:
    """Return the operand of a sum that is an integer convolution's result; if both are, the first.

    The kernel overwrites the other operand: it must have the same shape, not be the convolution's input, and have no
    reader that runs after the sum.
    """
    operands = node.all_input_nodes
    if len(operands) != 2 or node.kwargs or len({str(each.meta["val"].shape) for each in operands}) > 1:
        return None
    for source, other in (operands, operands[::-1]):
        made = source.all_input_nodes[0] if is_clamp_at_zero(source) else source
        once = len(source.users) == len(made.users) == 1
        if not once or operator_of(made) != "conv" or traced.keys.get(made.name) not in points.weights:
            continue
        if other not in made.all_input_nodes and all(each is node or _precedes(each, node) for each in other.users):
            return source
    return None


def _precedes(node: fx.Node, later: fx.Node) -> bool:
    """Return whether ``later`` depends on ``node``."""
    waiting, seen = [later], set[fx.Node]()
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source is node:
                return True
            if source not in seen:
                seen.add(source)
                waiting.append(source)
    return False


def is_clamp_at_zero(node: fx.Node) -> bool:
    """Return whether a node is a ReLU, possibly with an upper limit."""
    name = operator_of(node)
    return name in ("relu", "relu6") or (
        name in ("hardtanh", "clamp") and len(node.args) > 1 and bool(node.args[1] == 0)
    )


def sources_of(node: fx.Node) -> list[fx.Node]:
    """Return the nodes that a node reads. For one of several parts of a tensor, that tensor's."""
    found = node.all_input_nodes
    split = operator_of(node) == "getitem" and spec_of(found[0]).transparent
    return sources_of(found[0]) if split else found


def _output_axes(nodes: Sequence[fx.Node], traced: Traced) -> Mapping[str, int]:
    """Return the axis of the output channels of each parameter that is a weight.

    Without computed weights, without buffers, and without those shared by operators with different output axes.
    """
    found: dict[str, set[int]] = {}
    trained = traced.trained
    for node in nodes:
        axis = weight_axis(operator_of(node)) if node.op == "call_function" else None
        weight = _parameter(node, 1, traced) if axis is not None else ""
        if weight in trained and axis is not None:
            found.setdefault(weight, set()).add(axis)
    return {weight: min(axes) for weight, axes in found.items() if len(axes) == 1}


def _only_relu_behind(node: fx.Node) -> fx.Node | None:
    """Return the ReLU that is the only reader of a node, or None."""
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].op == "call_function" and is_clamp_at_zero(users[0]) else None


def _parameter(node: fx.Node, index: int, traced: Traced) -> str:
    source = node.args[index] if len(node.args) > index else node.kwargs.get(("input", "weight", "bias")[index])
    return traced.parameters.get(source.name, "") if isinstance(source, fx.Node) else ""
