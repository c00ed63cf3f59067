"""Which tensors of a graph have an encoding of their own, which share one, and which never exist as integers.

One rule for all runtimes: a convolution, linear layer or sum has its result rounded once, after the ReLU that follows
it alone (kernels fuse them); operators that only pass values on (reshape, padding, maximum), and an average over
windows, keep their input's encoding; the parts of a concatenation share one. Means over the image have their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx

from edgekd.students.graph import PASSING, Traced, operator_of

__all__ = ["Points", "is_clamp_at_zero", "points_of"]

FUSED_INTO_RELU = frozenset({"conv", "linear", "add"})
WEIGHTED = frozenset({"conv", "linear"})
SHARING = PASSING | {"avg_pool", "adaptive_avg_pool2d", "cat"}


@dataclass(frozen=True)
class Points:
    """Where a traced graph is rounded."""

    group: Mapping[str, str]  # key of every encoded tensor -> key of the tensor that stands for its group
    passing: frozenset[str]  # keys of operators that pass their input's integers on; they need no encoding of their own
    fused: frozenset[str]  # keys of operators whose result is rounded only after the ReLU behind them
    weights: Mapping[str, tuple[str, str]]  # key of a weighted operator -> names of its weight and bias ("" for none)
    users: Mapping[str, tuple[str, ...]]  # parameter name -> keys of the operators that use it as their weight


def points_of(traced: Traced) -> Points:
    """Read the rules off a graph."""
    nodes = [node for node in traced.program.graph.nodes if node.name in traced.keys]
    key = {node: traced.keys[node.name] for node in nodes}
    fused = {
        node
        for node in nodes
        if node.op == "call_function" and operator_of(node) in FUSED_INTO_RELU and _only_relu_follows(node)
    }
    parent: dict[str, str] = {key[node]: key[node] for node in nodes if node not in fused and is_tensor(node)}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for node in nodes:
        if node.op == "call_function" and operator_of(node) in SHARING and is_tensor(node):
            for source in node.all_input_nodes:
                if source in key and key[source] in parent:
                    parent[root(key[node])] = root(key[source])
    weights, users = {}, dict[str, tuple[str, ...]]()
    for node in nodes:
        if node.op == "call_function" and operator_of(node) in WEIGHTED:
            weight, bias = _parameter(node, 1, traced), _parameter(node, 2, traced)
            weights[key[node]] = (weight, bias)
            users[weight] = (*users.get(weight, ()), key[node])
    passing = {key[node] for node in nodes if node.op == "call_function" and operator_of(node) in PASSING}
    return Points(
        group={name: root(name) for name in parent},
        passing=frozenset(passing),
        fused=frozenset(key[node] for node in fused),
        weights=weights,
        users=users,
    )


def is_clamp_at_zero(node: fx.Node) -> bool:
    """Whether a node is a ReLU, or a ReLU with a ceiling."""
    name = operator_of(node)
    return name in ("relu", "relu6") or (
        name in ("hardtanh", "clamp") and len(node.args) > 1 and bool(node.args[1] == 0)
    )


def is_tensor(node: fx.Node) -> bool:
    """Whether a node's value is one float tensor."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _only_relu_follows(node: fx.Node) -> bool:
    users = list(node.users)
    return len(users) == 1 and users[0].op == "call_function" and is_clamp_at_zero(users[0])


def _parameter(node: fx.Node, index: int, traced: Traced) -> str:
    source = node.args[index] if len(node.args) > index else node.kwargs.get(("input", "weight", "bias")[index])
    return traced.parameters.get(source.name, "") if isinstance(source, fx.Node) else ""
