"""From a graph's operators to the kernels that are left when a runtime has fused what it fuses.

Every reader tells its format's operators in the same few words; what is fused is decided here, once: clipping, constant
scales and a bias go into the kernel before them where nothing else reads that, padding into the convolution behind it;
changes of shape and of number format cost nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, cast

from edgekd.ir.kernels import Kernel, KernelKind, Kernels, checked

__all__ = ["Operator", "OperatorKind", "Shape", "fused"]

OperatorKind = KernelKind | Literal["clamp", "scale", "free", "pad"]
Shape = tuple[int, ...]
"""Without batch, channels first: (C, H, W), (C, T) or (C,)."""

_LEFT: Mapping[OperatorKind, KernelKind] = {
    "clamp": "other",
    "scale": "other",
    "pad": "move",
}  # where they have nothing to go into


class Operator(NamedTuple):
    """One operator of a file. ``reads`` are activations alone; ``weights`` the elements of its constant matrix.

    ``clamp`` clips, ``scale`` multiplies by or subtracts a constant, ``free`` costs nothing.
    """

    kind: OperatorKind
    reads: tuple[str, ...]
    writes: str
    taps: int = 1
    stride: int = 1
    weights: int = 0


def fused(operators: Sequence[Operator], shapes: Mapping[str, Shape]) -> Kernels:
    """The kernels, in order. Raises ValueError naming a value whose shape isn't known."""
    same: dict[str, str] = {}
    readers = Counter(name for operator in operators for name in operator.reads)
    windows = {name for operator in operators if operator.kind in ("conv", "depthwise") for name in operator.reads}
    made: dict[str, Operator] = {}
    kept: list[Operator] = []
    for operator in operators:
        reads = tuple(same.get(name, name) for name in operator.reads)
        before = made.get(reads[0]) if reads else None
        alone = bool(reads) and readers[operator.reads[0]] == 1 and before is not None
        bias = operator.kind == "add" and len(reads) == 1 and before is not None and before.weights > 0
        scale = operator.kind == "scale" and len(reads) == 1
        if not reads:
            continue  # of constants alone: folded before the first inference
        padding = operator.kind == "pad" and operator.writes in windows and readers[operator.writes] == 1
        if operator.kind == "free" or padding or (alone and (operator.kind == "clamp" or scale or bias)):
            same[operator.writes] = reads[0]
            continue
        kept.append(operator._replace(reads=reads))
        made[operator.writes] = kept[-1]
    return checked(tuple(_kernel(operator, shapes) for operator in kept))


def _kernel(operator: Operator, shapes: Mapping[str, Shape]) -> Kernel:
    for name in (*operator.reads, operator.writes):
        if name not in shapes or any(side < 1 for side in shapes[name]):
            raise ValueError(f"the shape of `{name}` is not fixed")
    source, result = shapes[operator.reads[0]], shapes[operator.writes]
    height, width = (*result[1:], 1, 1)[:2]
    kind = _LEFT.get(operator.kind) or cast("KernelKind", operator.kind)
    places = height * width if kind in ("conv", "depthwise") else math.prod(result[1:])
    return Kernel(
        kind=kind,
        inputs=source[0] if source else 1,
        outputs=result[0] if result else 1,
        height=height,
        width=width,
        taps=operator.taps,
        stride=operator.stride,
        macs=operator.weights * places,
        reads=sum(math.prod(shapes[name]) for name in operator.reads),
        writes=math.prod(result),
        weights=operator.weights,
    )
