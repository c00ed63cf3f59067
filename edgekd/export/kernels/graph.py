"""Kernel fusion: from a graph's operators to the kernels that are left when a runtime has fused them.

Every reader describes its format's operators as `FileOperator`; fusion is decided here, once: clipping, constant scales
and a bias go into the kernel before them where nothing else reads that, padding into the convolution behind it; changes
of shape and of number format cost nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edgekd.ir.kernels import Kernel, Kernels, checked
from edgekd.ir.operators import OperatorKind, kernel_kind

__all__ = ["FileOperator", "Shape", "fused", "without_batch"]

Shape = tuple[int, ...]
"""Without batch, channels first: (C, H, W), (C, T) or (C,)."""


class FileOperator(NamedTuple):
    """Operator of a file. ``reads`` are activations alone; ``weights`` the elements of its constant matrix."""

    kind: OperatorKind
    reads: tuple[str, ...]
    writes: str
    taps: int = 1
    stride: int = 1
    weights: int = 0
    transposed: bool = False  # a convolution whose window moves over its result: one product per source position
    inner: int = 0  # of a matrix product: the length of its sums
    outer: int = 0  # of a matrix product: the columns of its result


def without_batch(sides: Sequence[int], batch: int) -> Shape:
    """Shape of a value without its batch axis. Where its first axis is another (rows of all samples), it stays."""
    return tuple(sides[1:] if len(sides) > 1 and sides[0] == batch else sides)


def fused(operators: Sequence[FileOperator], shapes: Mapping[str, Shape]) -> Kernels:
    """Kernels after fusion, in order. Raises ValueError naming a value whose shape isn't known."""
    same: dict[str, str] = {}
    readers = Counter(name for operator in operators for name in operator.reads)
    windows = {name for operator in operators if operator.kind in ("conv", "depthwise") for name in operator.reads}
    made: dict[str, FileOperator] = {}
    kept: list[FileOperator] = []
    for operator in operators:
        reads = tuple(same.get(name, name) for name in operator.reads)
        before = made.get(reads[0]) if reads else None
        alone = bool(reads) and readers[operator.reads[0]] == 1 and before is not None
        bias = operator.kind == "add" and len(reads) == 1 and before is not None and before.weights > 0
        elementwise = operator.kind in ("clamp", "scale") and len(reads) == 1
        if not reads:
            continue  # of constants alone: folded before the first inference
        padding = operator.kind == "pad" and operator.writes in windows and readers[operator.writes] == 1
        if operator.kind == "free" or padding or (alone and (elementwise or bias)):
            same[operator.writes] = reads[0]
            continue
        kept.append(operator._replace(reads=reads))
        made[operator.writes] = kept[-1]
    return checked(tuple(_kernel(operator, shapes) for operator in kept))


def _kernel(operator: FileOperator, shapes: Mapping[str, Shape]) -> Kernel:
    for name in (*operator.reads, operator.writes):
        if name not in shapes or any(side < 1 for side in shapes[name]):
            raise ValueError(f"the shape of `{name}` is not fixed")
    source, result = shapes[operator.reads[0]], shapes[operator.writes]
    height, width = (*result[1:], 1, 1)[:2]
    kind = kernel_kind(operator.kind)
    dense = operator.inner and operator.outer
    if dense:  # of rows by columns, whatever the axes of the rows are
        height, width = math.prod(result) // operator.outer, 1
    places = math.prod(source[1:]) if operator.transposed else math.prod(result[1:])
    products = operator.inner * math.prod(result) if kind == "dense" else operator.weights * places
    return Kernel(
        kind=kind,
        inputs=operator.inner if dense else source[0] if source else 1,
        outputs=operator.outer if dense else result[0] if result else 1,
        height=height,
        width=width,
        taps=operator.taps,
        stride=operator.stride,
        macs=products,
        reads=sum(math.prod(shapes[name]) for name in operator.reads),
        writes=math.prod(result),
        weights=operator.weights,
    )
