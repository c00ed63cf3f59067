"""Sample grid of generated images as a PNG, by the standard library (PNG specification, third edition, W3C 2025)."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekd.store.atomic import write_bytes
from edgekd.tasks._protocol import InputSpec

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PICTURES_FILE", "grid", "png", "write_pictures"]

PICTURES_FILE = "pictures.png"
_GAP, _GAP_SHADE, _SMALLEST = 2, 255, 32


def write_pictures(folder: Path, images: Tensor, spec: InputSpec) -> None:
    """Write images (N, C, H, W) in raw units as a grid to ``pictures.png``; the raw range is black to white."""
    from edgekd.distill.generative.bank import to_bytes

    write_bytes(folder / PICTURES_FILE, png(grid(to_bytes(images, spec).cpu().numpy())))


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return the PNG file's bytes for grey (H, W) or colour (H, W, 3) pixels."""
    height, width = pixels.shape[:2]
    colour = 2 if pixels.ndim == 3 else 0
    rows = np.ascontiguousarray(pixels).reshape(height, -1)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)  # a row begins with its filter: none
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def grid(images: NDArray[np.uint8], columns: int = 8) -> NDArray[np.uint8]:
    """Arrange images (N, C, H, W) in a grid: (H', W') for one channel, (H', W', 3) for three.

    Small images are enlarged by whole pixels. If there are other than three channels, only the first is shown.
    """
    shown = images if images.shape[1] == 3 else images[:, :1]
    scale = max(1, _SMALLEST // min(shown.shape[2:]))
    shown = shown.repeat(scale, axis=2).repeat(scale, axis=3)
    count, channels, height, width = shown.shape
    rows = -(-count // columns)
    shape = (rows * (height + _GAP) - _GAP, min(columns, count) * (width + _GAP) - _GAP, channels)
    sheet = np.full(shape, _GAP_SHADE, np.uint8)
    for number, image in enumerate(shown):
        top, left = (height + _GAP) * (number // columns), (width + _GAP) * (number % columns)
        sheet[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return sheet if channels == 3 else sheet[:, :, 0]


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
