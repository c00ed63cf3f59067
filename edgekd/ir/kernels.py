"""A network as a runtime sees it: one kernel for each operator that is left when it has fused what it fuses.

BatchNorm is folded into what comes before it, an activation is part of the kernel whose result it clips, reshapes cost
nothing. What reads a student (`edgekd.students.analysis`) and what reads a file (`edgekd.export.kernels`) come to the
same kernels, so a latency measured on a file says something about a student that was never exported.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

__all__ = ["Kernel", "KernelKind", "Kernels", "checked", "counted_macs", "prepares_image"]

KernelKind = Literal["conv", "depthwise", "dense", "add", "pool", "move", "other"]


class Kernel(NamedTuple):
    """One operator at batch 1. Sizes are in elements, so that they hold at any precision.

    ``move`` is whatever only puts values elsewhere: padding, concatenation, resizing, slicing. ``other`` is arithmetic
    on every element.
    """

    kind: KernelKind
    inputs: int  # channels
    outputs: int
    height: int  # of the result
    width: int
    taps: int  # of a convolution's window: 9 for 3 x 3
    stride: int
    macs: int
    reads: int  # activations
    writes: int
    weights: int


Kernels = tuple[Kernel, ...]
"""All of a network's, in the order in which they run."""


_IMAGE_CHANNELS = 4
_MOST = 2048  # kernels of a network
_LARGEST_SIZE, _LARGEST_COUNT = 2**31, 2**53


def checked(kernels: Kernels) -> Kernels:
    """The same, where they can be a network's. Raises ValueError on sizes that no network has."""
    if not 0 < len(kernels) <= _MOST:
        raise ValueError(f"{len(kernels)} kernels: a network has 1 to {_MOST}")
    for kernel in kernels:
        sizes = (kernel.inputs, kernel.outputs, kernel.height, kernel.width, kernel.taps, kernel.stride)
        counts = (kernel.macs, kernel.reads, kernel.writes, kernel.weights)
        if not all(0 < size <= _LARGEST_SIZE for size in sizes) or not all(0 <= n <= _LARGEST_COUNT for n in counts):
            raise ValueError(f"a kernel of sizes {sizes} and counts {counts}"[:200])
    return kernels


def prepares_image(kernel: Kernel) -> bool:
    """Whether it brings an image into the form that a network takes: to another layout, or its channels to a scale.

    Told by its channels, for readings keep no order of kernels. Some files scale by a depthwise convolution of one
    pixel.
    """
    channels, pixels = min(kernel.inputs, kernel.outputs), kernel.height * kernel.width
    pixelwise = kernel.kind in ("add", "move", "other") or (kernel.kind == "depthwise" and kernel.taps == 1)
    return pixelwise and channels <= _IMAGE_CHANNELS and pixels > 1


def counted_macs(kernels: Iterable[Kernel]) -> int:
    """Multiply-adds of a whole network."""
    return sum(kernel.macs for kernel in kernels)
