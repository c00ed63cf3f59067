"""Kernels of a model file of any format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from edgekd.artefacts import Artefact, Format
from edgekd.errors import ConfigurationError, Place
from edgekd.export.kernels.onnx import onnx_kernels
from edgekd.export.kernels.openvino import openvino_kernels
from edgekd.export.kernels.tflite import tflite_kernels
from edgekd.ir.kernels import Kernels

__all__ = ["kernels_of_file"]

_READERS: Mapping[Format, Callable[[Path], Kernels]] = {
    Format.TFLITE: tflite_kernels,
    Format.ONNX: onnx_kernels,
    Format.OPENVINO: openvino_kernels,
}


def kernels_of_file(artefact: Artefact) -> Kernels:
    """Kernels that a runtime will run. Raises ConfigurationError on a file that can't be read."""
    try:
        found = _READERS[artefact.format](artefact.path)
    except (ValueError, OSError, AttributeError, IndexError, TypeError, OverflowError, RecursionError) as error:
        raise ConfigurationError.one(
            f"its operators can't be read: {error}",
            "give a file with fixed shapes; a damaged one has to be copied or exported again",
            Place(str(artefact.path)),
        ) from error
    return found
