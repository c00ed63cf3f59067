"""Encoded tensors of a student's program, by node: the annotated ones, and those that only pass values on."""

from __future__ import annotations

from edgekd.errors import ConfigurationError
from edgekd.ir.encoding import Encoding
from edgekd.students.graph import Traced, is_decoding, spec_of

__all__ = ["biases", "decoding_nodes", "encodings_by_node", "float_nodes", "passing_nodes"]


def encodings_by_node(traced: Traced) -> dict[str, Encoding]:
    """Encoding by node name. An operator that only moves values (flatten, pad, max pool) shares its input's.

    Decoding nodes have none, nor have tensors that only float islands read and write. Raises ConfigurationError where
    an annotation names no tensor of the program.
    """
    activations = traced.student.annotations.activations
    floats = frozenset(traced.student.annotations.float_operators)
    unknown = sorted((activations.keys() | floats) - set(traced.keys.values()))
    if unknown:
        raise ConfigurationError.one(
            f"annotations of tensors the student doesn't have: {', '.join(unknown)}",
            "calibrate the student again: its graph has changed since",
        )
    found: dict[str, Encoding] = {}
    for node in traced.program.graph.nodes:
        key = traced.keys.get(node.name)
        if key is None or is_decoding(key):
            continue
        if key in activations:
            found[node.name] = activations[key]
        elif node.op == "call_function" and key not in floats and spec_of(node).transparent and node.all_input_nodes:
            source = found.get(node.all_input_nodes[0].name)
            if source is not None:
                found[node.name] = source
    return found


def biases(traced: Traced) -> dict[str, str]:
    """Name of the bias that each node with weights adds, by the node's name."""
    found = dict[str, str]()
    for node in traced.program.graph.nodes:
        if node.op != "call_function" or not spec_of(node).weighted or len(node.args) < 3:
            continue
        bias = traced.parameters.get(getattr(node.args[2], "name", ""))
        if bias is not None:
            found[node.name] = bias
    return found


def decoding_nodes(traced: Traced) -> frozenset[str]:
    """Names of the nodes that decode raw outputs."""
    return frozenset(name for name, key in traced.keys.items() if is_decoding(key))


def float_nodes(traced: Traced) -> frozenset[str]:
    """Names of the nodes that compute in float in a static int8 student."""
    floats = frozenset(traced.student.annotations.float_operators)
    return frozenset(name for name, key in traced.keys.items() if key in floats)


def passing_nodes(traced: Traced) -> frozenset[str]:
    """Names of encoded nodes that only move values: a format may merge them into others, and have no such tensor."""
    own = traced.student.annotations.activations
    return frozenset(name for name in encodings_by_node(traced) if traced.keys[name] not in own)
