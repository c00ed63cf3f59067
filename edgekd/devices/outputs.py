"""Answers of a model on a device: files from there are plain arrays of numbers, or an error of the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from edgekd.devices.answers import nonsense

__all__ = ["open_output", "samples_in"]


def open_output(path: Path, samples: int) -> NDArray[Any]:
    """The array of an output, mapped, a row a sample.

    Raises DeviceUnreachable where the file is no .npy, cut, of something else than numbers, or of other samples.
    """
    try:
        found: NDArray[Any] = open_memmap(path, mode="r")
    except Exception as error:  # what numpy raises on a stranger's header has no common base
        raise nonsense(f"an output is no .npy file ({type(error).__name__}: {str(error)[:80]})") from error
    if found.dtype.kind not in "biuf":
        raise nonsense(f"an output holds {str(found.dtype)[:80]}, no numbers")
    if not found.ndim or len(found) != samples:
        raise nonsense(f"an output has the shape {found.shape}, and {samples} samples were given")
    return found


def samples_in(path: Path) -> int:
    """Number of samples in a file of our own; 0 where it is no .npy, which the agent then says."""
    try:
        shape: tuple[int, ...] = open_memmap(path, mode="r").shape
    except (OSError, ValueError):
        return 0
    return shape[0] if shape else 0
