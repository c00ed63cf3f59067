"""Embedding tables: stored in 8 bits with one scale, and read in float.

A table is not multiplied, so integers only save bytes. Its values in the student are the dequantized ones, so that a
float computation gives the same results as a file's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from edgekd.compress.quantization.weights import weight_integers, weight_scales
from edgekd.ir.encoding import Encoding
from edgekd.students.graph import Traced, operator_of

__all__ = ["on_grid", "table_encodings", "tables_of"]


def tables_of(traced: Traced) -> frozenset[str]:
    """Return the names of parameters that only embeddings read."""
    read, others = set[str](), set[str]()
    for node in traced.program.graph.nodes:
        taken = node.args[0] if node.op == "call_function" and operator_of(node) == "embedding" else None
        for source in node.all_input_nodes:
            if isinstance(source, fx.Node) and source.name in traced.parameters:
                (read if source is taken else others).add(traced.parameters[source.name])
    return frozenset(read - others)


def table_encodings(traced: Traced, state: Mapping[str, Tensor], limit: int, bits: int) -> dict[str, Encoding]:
    """Return symmetric encodings with one scale for each table: the largest magnitude becomes ``limit``."""
    found = {}
    for name in sorted(tables_of(traced)):
        largest = float(state[name].abs().max())
        scale = float(torch.tensor(largest / limit, dtype=torch.float32)) or 1.0 / limit
        found[name] = Encoding(bits=bits, scale=(scale,), zero_point=(0,), limit=limit)
    return found


def on_grid(module: nn.Module, encodings: Mapping[str, Encoding]) -> None:
    """Replace parameters by their dequantized values, in place."""
    named = dict(module.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, encoding in encodings.items():
            named[name].copy_(weight_integers(named[name], encoding) * weight_scales(named[name], encoding))
