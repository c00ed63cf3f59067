"""Float islands: operators of a static int8 student that compute in float.

An operator is in an island if it has no integer form (softmax, LayerNorm, GELU), if the recipe asks for it, or if
integers would only be made for it: after another island, with no operator in between that computes in integers. A sum
of a float and an integer value is float if a float operator reads it (the residual stream of a transformer), else
integer. The file quantizes and dequantizes at the borders. The cost of an island is measured, like everything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from fnmatch import fnmatchcase

from torch import fx

from edgekd.compress.quantization.rules import is_clamp_at_zero
from edgekd.errors import Problem
from edgekd.ir.encoding import UNPACKING
from edgekd.students.graph import Traced, is_tensor, operator_of, spec_of
from edgekd.students.islands import stays_float

__all__ = ["float_operators", "kept_operators", "unmatched", "why_float"]

_ELEMENTWISE = ("add", "sub", "mul")


def float_operators(traced: Traced, left: Sequence[str] = ()) -> Mapping[str, str]:
    """Return the key of every operator that computes in float, in order, with the reason.

    ``left`` are patterns of keys or module paths (``layer4.*``, ``head:linear``) that the recipe leaves in float. One
    that matches nothing is not an error: an arch may have no such module (see `unmatched`).
    """
    return _Placement(traced, left).found


def unmatched(archs: Sequence[Traced], patterns: Sequence[str]) -> list[Problem]:
    """Return the patterns that match no operator in any of these programs."""
    computing = [[_key(node, traced) for node in _computing(traced)] for traced in archs]
    weighted = [_key(node, archs[0]) for node in _computing(archs[0]) if spec_of(node).weighted]
    return [
        Problem(
            f"quantize: keep_float: `{pattern}` matches no operator of this student",
            f"name an operator or a module, as {', '.join(weighted[:3])}",
        )
        for pattern in patterns
        if not any(_matches(key, pattern) for keys in computing for key in keys)
    ]


def kept_operators(traced: Traced) -> frozenset[str]:
    """Return the keys of operators whose module computes in float at every precision."""
    module = traced.student.module
    return frozenset(key for key in traced.keys.values() if stays_float(module, key.rpartition(":")[0]))


def _computing(traced: Traced) -> list[fx.Node]:
    """Return operators with one result that do more than move values."""
    keyed = [node for node in traced.program.graph.nodes if node.op == "call_function" and node.name in traced.keys]
    return [node for node in keyed if is_tensor(node) and not spec_of(node).transparent]


def _key(node: fx.Node, traced: Traced) -> str:
    return traced.keys[node.name]


def why_float(node: fx.Node, traced: Traced, computed: AbstractSet[fx.Node]) -> str:
    """Return why an operator has no integer form; empty if it has one. ``computed``: nodes that depend on the input."""
    name, spec = operator_of(node), spec_of(node)
    if isinstance(node.meta.get("val"), (list, tuple)) and not spec.transparent:
        return f"has several results, and no integer form ({name})"
    if name == "batch_norm":
        return "is a BatchNorm that can't be folded into a convolution: it follows none, or its class computes more"
    if spec.encodes == "none":
        return f"has no integer form ({name})"
    if spec.weighted:
        weight = node.args[1]
        if not isinstance(weight, fx.Node) or weight.name not in traced.parameters:
            return "takes its weight from a computation"
        if traced.parameters[weight.name] not in traced.trained:
            return "takes its weight from a buffer, and only parameters are quantized"
        if len(node.args) > 2 and isinstance(node.args[2], fx.Node) and node.args[2].name not in traced.parameters:
            return "takes its bias from a computation"
    elif name in ("hardtanh", "clamp") and not is_clamp_at_zero(node):
        return "clamps to a range that doesn't begin at zero"
    elif _is_padded_by_other_than_zero(node):
        return f"pads with {node.args[3]}, and only zero stays exact"
    elif name.startswith("max_pool") and _is_padded_by_other_than_zero(node.args[0]):
        return "reads padding by other than zero"
    elif name in (*_ELEMENTWISE, "cat") and not all(part in computed for part in _operands(node)):
        return "takes a constant, and only computed tensors have an integer form"
    return ""


def _is_padded_by_other_than_zero(node: object) -> bool:
    return isinstance(node, fx.Node) and operator_of(node) == "pad" and len(node.args) > 3 and bool(node.args[3])


def _operands(node: fx.Node) -> Sequence[object]:
    """Return the tensors and numbers that an operator computes with."""
    return node.all_input_nodes if operator_of(node) == "cat" else node.args[:2]


def _computed(traced: Traced) -> frozenset[fx.Node]:
    """Return the input and the tensors that depend on its values, not on its shape alone."""
    found = set[fx.Node]()
    for node in traced.program.graph.nodes:
        tensors = is_tensor(node) or isinstance(node.meta.get("val"), (list, tuple))
        if traced.keys.get(node.name) == "input" or (tensors and not found.isdisjoint(node.all_input_nodes)):
            found.add(node)
    return frozenset(found)


class _Placement:
    def __init__(self, traced: Traced, left: Sequence[str]) -> None:
        self._traced = traced
        nodes = [node for node in traced.program.graph.nodes if node.op == "call_function" and node.name in traced.keys]
        self._key = {node: traced.keys[node.name] for node in nodes}
        self._reasons: dict[str, str] = {}
        computed = _computed(traced)
        for node in nodes:
            if is_tensor(node) or isinstance(node.meta.get("val"), (list, tuple)):
                self._note(node, why_float(node, traced, computed) if node in computed else "computes a constant")
        for node in _computing(traced):
            if any(_matches(self._key[node], pattern) for pattern in left):
                self._note(node, "is left in float by the recipe")
        for node in nodes:
            if self._key[node].startswith(f"{UNPACKING}:"):
                self._note(node, "is one of several inputs, which have no scale in common")
        kept = kept_operators(traced)
        for node in _computing(traced):
            if self._key[node] in kept:
                self._note(node, "is kept in float by its module")
        self._leave_shared_weights(nodes)
        definite = set(self._reasons)
        for node in nodes:
            if self._key[node] not in self._reasons and is_tensor(node):
                self._note(node, self._joins(node, definite))
        self.found = {key: self._reasons[key] for key in self._key.values() if key in self._reasons}

    def _note(self, node: fx.Node, reason: str) -> None:
        if reason:
            self._reasons[self._key[node]] = reason

    def _leave_shared_weights(self, nodes: Sequence[fx.Node]) -> None:
        """Leave all operators of a weight in float if one of them is: a weight is stored once."""
        users: dict[object, list[fx.Node]] = {}
        for node in nodes:
            if spec_of(node).weighted and len(node.args) > 1:
                users.setdefault(node.args[1], []).append(node)
        for sharing in users.values():
            if any(self._key[node] in self._reasons for node in sharing):
                for node in sharing:
                    self._reasons.setdefault(self._key[node], "shares its weight with an operator in float")

    def _joins(self, node: fx.Node, definite: set[str]) -> str:
        """Return why an operator with an integer form is better part of an adjacent island."""
        spec = spec_of(node)
        if operator_of(node) == "getitem" and self._key[node.all_input_nodes[0]] in self._reasons:
            return "follows operators in float"  # its source has several results
        if spec.weighted or spec.transparent:
            return ""
        real = [self._is_real(source) for source in node.all_input_nodes]
        if all(real):
            return "follows operators in float"
        if any(real) and operator_of(node) in _ELEMENTWISE and any(key in definite for key in self._readers(node)):
            return "stands between operators in float"
        return ""

    def _is_real(self, node: fx.Node) -> bool:
        """Return whether a value was computed in float, looking through operators that only move it. Constants are."""
        while node in self._key and self._key[node] not in self._reasons and spec_of(node).transparent:
            node = node.all_input_nodes[0]
        key = self._key.get(node)
        return key in self._reasons if key is not None else self._traced.keys.get(node.name) != "input"

    def _readers(self, node: fx.Node) -> Iterator[str]:
        for user in node.users:
            key = self._key.get(user)
            if key is not None and key not in self._reasons and spec_of(user).transparent:
                yield from self._readers(user)
            elif key is not None:
                yield key


def _matches(key: str, pattern: str) -> bool:
    path = key.partition(":")[0]
    return fnmatchcase(key, pattern) or fnmatchcase(path, pattern) or path.startswith(f"{pattern}.")
