"""Kernels of a network: one for each operator that remains after a runtime's fusions.

BatchNorm is folded into the preceding operator, an activation is part of the kernel whose result it clips, reshapes are
free. The analysis of a student (`edgekd.students.analysis`) and of a file (`edgekd.export.kernels`) give the same
kernels, so a latency measured on a file applies to a student that was never exported.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

__all__ = ["Kernel", "KernelKind", "Kernels", "checked", "counted_macs", "prepares_image"]

KernelKind = Literal["conv", "depthwise", "dense", "add", "pool", "move", "other"]


class Kernel(NamedTuple):
    """Operator at batch 1. Sizes are in elements, so that they hold at any precision.

    ``move`` is any operator that only moves values: padding, concatenation, resizing, slicing. ``other`` is elementwise
    arithmetic.
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
"""Kernels of a network, in order of execution."""


_IMAGE_CHANNELS = 4
_MOST = 2048  # kernels of a network
_LARGEST_SIZE, _LARGEST_COUNT = 2**31, 2**53


def checked(kernels: Kernels) -> Kernels:
    """Return the kernels if they are plausible for a network. Raises ValueError for impossible sizes."""
    if not 0 < len(kernels) <= _MOST:
        raise ValueError(f"{len(kernels)} kernels: a network has 1 to {_MOST}")
    for kernel in kernels:
        sizes = (kernel.inputs, kernel.outputs, kernel.height, kernel.width, kernel.taps, kernel.stride)
        counts = (kernel.macs, kernel.reads, kernel.writes, kernel.weights)
        if not all(0 < size <= _LARGEST_SIZE for size in sizes) or not all(0 <= n <= _LARGEST_COUNT for n in counts):
            raise ValueError(f"a kernel of sizes {sizes} and counts {counts}"[:200])
    return kernels


def prepares_image(kernel: Kernel) -> bool:
    """Return whether a kernel prepares an input image: changes its layout, or scales its channels.

    Detected by its channels, since observations keep no order of kernels. Some files scale by a depthwise convolution
    of one pixel.
    """
    channels, pixels = min(kernel.inputs, kernel.outputs), kernel.height * kernel.width
    pixelwise = kernel.kind in ("add", "move", "other") or (kernel.kind == "depthwise" and kernel.taps == 1)
    return pixelwise and channels <= _IMAGE_CHANNELS and pixels > 1


def counted_macs(kernels: Iterable[Kernel]) -> int:
    """Return the multiply-adds of a whole network."""
    return sum(kernel.macs for kernel in kernels)
