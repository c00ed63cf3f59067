"""Generated images on disk: one safetensors file in its own folder (see gan_augment.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from edgekd.store.atomic import write_bytes
from edgekd.tasks._protocol import InputSpec

__all__ = ["IMAGES_FILE", "read_images", "write_images"]

IMAGES_FILE = "images.safetensors"


def read_images(folder: Path, count: int) -> NDArray[np.generic] | None:
    """Read the first ``count`` images of a folder; None if there are fewer or the file is damaged."""
    path = folder / IMAGES_FILE
    try:
        images = load(path.read_bytes())["images"] if path.is_file() else None
    except (SafetensorError, KeyError):
        return None  # they are drawn again
    return images[:count] if images is not None and len(images) >= count else None


def write_images(folder: Path, raw: Tensor, spec: InputSpec) -> NDArray[np.generic]:
    """Write images (N, C, H, W) in the input's raw type, and return them so. Raises OSError."""
    values = raw.cpu().numpy()
    low, high = spec.raw_range
    images: NDArray[np.generic] = values
    if spec.raw_dtype == "uint8":
        images = np.clip(np.rint(values), low, high).astype(np.uint8)
    write_bytes(folder / IMAGES_FILE, save({"images": images}))
    return images
