"""A device whose kernels cost what is written here: with vectors, staircases, caches and a cost of each call."""

from __future__ import annotations

import numpy as np

from edgekd.ir.kernels import Kernel, Kernels

__all__ = ["latency_us", "network", "some_networks"]


def network(widths: tuple[int, ...], depths: tuple[int, ...], side: int = 32) -> Kernels:
    """A residual network of that many channels and blocks a stage."""
    kernels, channels = [_conv(3, widths[0], side, 1)], widths[0]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            side //= stride
            kernels += [_conv(channels, width, side, stride), _conv(width, width, side, 1), _add(width, side)]
            channels = width
    kernels.append(Kernel("dense", channels, 10, 1, 1, 1, 1, 10 * channels, channels, 10, 10 * channels))
    return tuple(kernels)


def some_networks(count: int, seed: int) -> list[Kernels]:
    """Drawn evenly from widths of 8 to 64 and one to three blocks a stage."""
    drawn = np.random.default_rng(seed)
    widths, depths = drawn.integers(1, 9, (count, 3)) * 8, drawn.integers(1, 4, (count, 3))
    return [network(tuple(map(int, w)), tuple(map(int, d))) for w, d in zip(widths, depths, strict=True)]


def latency_us(kernels: Kernels, speed: float = 1.0, seed: int | None = None) -> float:
    """3 us a call; a kernel costs its padded work, more where few channels are read, its bytes, and a start.

    From 32 channels on another algorithm is taken, faster by a third, and it is worse at small pictures.

    ``seed`` adds noise of 0.5 %; None: none.
    """
    total = 3.0
    for kernel in kernels:
        padded = -(-kernel.outputs // 16) * 16 / kernel.outputs
        hard = 1.0 + 4.0 / kernel.inputs + (0.3 if kernel.stride > 1 else 0.0)
        if kernel.inputs >= 32 and kernel.stride == 1 and kernel.taps > 1:
            hard *= 0.65 * (1.0 + 4.0 / kernel.height)
        total += 2e-5 * kernel.macs * padded * hard + 1e-4 * (kernel.reads + kernel.writes) + 0.4
    noise = 1.0 if seed is None else float(np.exp(np.random.default_rng(seed).normal(0.0, 0.005)))
    return speed * total * noise


def _conv(inputs: int, outputs: int, side: int, stride: int) -> Kernel:
    weights, area = 9 * inputs * outputs, side * side
    reads, writes = inputs * area * stride**2, outputs * area
    return Kernel("conv", inputs, outputs, side, side, 9, stride, weights * area, reads, writes, weights)


def _add(channels: int, side: int) -> Kernel:
    size = channels * side * side
    return Kernel("add", channels, channels, side, side, 1, 1, 0, 2 * size, size, 0)
