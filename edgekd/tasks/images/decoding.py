"""Picture decoding by Pillow: a file to a raw sample of one orientation, mode and size, as in `PictureSpec`."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ConfigurationError, MissingError
from edgekd.tasks._protocol import PictureSpec

__all__ = ["PICTURE_SUFFIXES", "converted", "framed", "opened", "picture_bytes", "reading", "size_of"]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")

_EXIF_ORIENTATION, _TURNED_ON_THEIR_SIDE = 0x0112, (5, 6, 7, 8)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert Pillow's errors on a file's content to ConfigurationError with the path."""
    try:
        yield
    except (
        OSError,
        ValueError,
        SyntaxError,  # of Pillow's PNG and EXIF readers
        EOFError,
        LookupError,
        TypeError,
        OverflowError,
        struct.error,
        _pillow().DecompressionBombError,
    ) as error:  # Pillow's readers raise many kinds on a damaged file
        reason = str(error).partition(" <_io.")[0]  # Pillow gives the address of its buffer, too
        raise ConfigurationError.one(f"{path} can't be read as a picture: {reason}", "check the file") from error


def opened(data: bytes, path: Path) -> Any:
    """Return a loaded Pillow image. Raises ConfigurationError with the path if the bytes are no picture."""
    with reading(path):
        image = _pillow().open(io.BytesIO(data))
        image.load()
    return image


def picture_bytes(path: Path) -> bytes:
    """Return a file's content. Raises ConfigurationError if it is missing or can't be read."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise ConfigurationError.one(f"{path} can't be read: {error.strerror}", "check the file") from error


def framed(image: Any, spec: PictureSpec, path: Path) -> NDArray[np.uint8]:
    """Convert a Pillow image, which may be changed, to (C, H, W).

    Raises ConfigurationError for a picture of floats, or one that can't be converted.
    """
    from PIL import ImageOps

    size, bilinear = (spec.size[1], spec.size[0]), _pillow().Resampling.BILINEAR
    with reading(path):
        if spec.orientation == "exif":
            ImageOps.exif_transpose(image, in_place=True)
        image = converted(image, spec.mode, path)
        if spec.fit == "crop":
            image = ImageOps.fit(image, size, bilinear)
        elif image.size != size:
            image = image.resize(size, bilinear)
        pixels = np.asarray(image, np.uint8)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)) if spec.mode == "RGB" else pixels[None]


def converted(image: Any, mode: str, path: Path) -> Any:
    """Convert to mode ``RGB`` or ``L``: the upper 8 of 16 bits, without transparency.

    Raises ConfigurationError for pictures of floats, whose range is unknown.
    """
    if image.mode == "F":
        raise ConfigurationError.one(
            f"{path} is a picture of floats, whose black and white are unknown", "write it with 8 or 16 bits"
        )
    if image.mode.startswith("I"):
        image = _pillow().fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    if image.mode == "P":
        image = image.convert("RGBA")  # Pillow warns where a palette with transparency becomes RGB at once
    return image if image.mode == mode else image.convert(mode)


def size_of(data: bytes, path: Path) -> tuple[int, int]:
    """Return height and width of a picture after its rotation, from the header only. Raises ConfigurationError."""
    with reading(path):
        image = _pillow().open(io.BytesIO(data))
        sideways = image.getexif().get(_EXIF_ORIENTATION) in _TURNED_ON_THEIR_SIDE
        turned = sideways and image.format != "TIFF"  # whose size Pillow gives as it is turned
    return (image.width, image.height) if turned else (image.height, image.width)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingError("reading pictures needs pillow, and it is not installed", "pip install pillow") from error
    return Image
