"""Static features of a network: counts that need no run."""

from __future__ import annotations

from edgekd.records import Record

__all__ = ["StaticFeatures"]


class StaticFeatures(Record):
    """Counts from the graph, at batch 1. Evidence kind: analytic."""

    parameters: int
    macs: int
    weight_bytes: int  # at the plan's precision
    peak_activation_bytes: int  # largest sum of tensors alive at once, at the plan's precision
    bytes_moved: int  # every operator's inputs, outputs and weights
    depth: int  # operators on the longest path
