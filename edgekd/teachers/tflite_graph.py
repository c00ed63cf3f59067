"""TFLite graph with one image input, run on batches of any length with real inputs and outputs.

Most files have a batch of one, and resizing it makes them several times faster. Not every graph can be resized: some
refuse, and some go on with constants of the old batch and compute wrong outputs. So a resized graph is first compared
with the file's own batch on a few random images, and not used if it differs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgekd.errors import ConfigurationError, UnknownName, first_line

__all__ = ["Port", "TfliteGraph"]

_AT_ONCE = 16
_FAILURES = (RuntimeError, ValueError, TypeError)  # raised by LiteRT for a graph it can't load, resize or run


class Port:
    """Input or output: index, and quantization of its integers."""

    def __init__(self, detail: Any) -> None:
        self.index, self.name = int(detail["index"]), str(detail["name"])
        self.dtype = np.dtype(detail["dtype"])
        self.integer = self.dtype.kind in "iu"
        scales, zeros = detail["quantization_parameters"]["scales"], detail["quantization_parameters"]["zero_points"]
        self.quantized = len(scales) == 1 and float(scales[0]) > 0
        self.scale = float(scales[0]) if self.quantized else 1.0
        self.zero = int(zeros[0]) if self.quantized else 0

    @property
    def least(self) -> float:
        """Smallest real number that its integers represent."""
        return (np.iinfo(self.dtype).min - self.zero) * self.scale

    @property
    def most(self) -> float:
        """Largest real number that its integers represent."""
        return (np.iinfo(self.dtype).max - self.zero) * self.scale

    def stored(self, real: NDArray[np.float32]) -> NDArray[Any]:
        """Quantize real numbers to the port's type."""
        if not self.integer:
            return real.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        steps: NDArray[Any] = np.clip(np.rint(real / self.scale) + self.zero, limits.min, limits.max)
        return steps.astype(self.dtype)

    def real(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Dequantize the port's numbers to real ones."""
        if not self.integer:
            return stored.astype(np.float32)
        return ((stored.astype(np.float32) - self.zero) * self.scale).astype(np.float32)


class TfliteGraph:
    """Loaded TFLite file. ``takes`` is its input's shape without batch, None for any size.

    ``pixels``: a uint8 input without a scale is fed raw values. Raises ConfigurationError for a file that can't be
    loaded or whose input or output can't be used.
    """

    def __init__(self, file: Path, output: str | None, *, pixels: bool) -> None:
        self.file = file
        entries, outputs = self._open()
        if len(entries) != 1:
            names = ", ".join(str(entry["name"]) for entry in entries)
            raise ConfigurationError.one(f"{file} has several inputs ({names})", "a teacher takes one image input")
        known = [str(entry["name"]) for entry in outputs]
        if output is not None and output not in known:
            raise UnknownName("output", output, known, remedy=f"in {file}")
        self.input, self.output = Port(entries[0]), Port(outputs[known.index(output) if output else 0])
        self._check_ends(pixels)
        shape = [int(side) for side in entries[0]["shape"]]
        signature = [int(side) for side in entries[0].get("shape_signature", ())] or shape
        self.takes = tuple(None if side < 0 else side for side in signature[1:])
        self._own = max(1, shape[0]) if shape else 1
        self._batch: int | None = None  # settled by the first call with more than one picture

    def __call__(self, fed: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return real outputs for real images (N, ...) in the file's layout.

        Raises ConfigurationError if it can't run.
        """
        if self._batch is None and len(fed) > self._own:
            self._batch = self._most(fed)
        try:
            return self._in_batches(fed, self._batch or self._own)
        except _FAILURES as error:
            raise ConfigurationError.one(
                f"{self.file.name} can't be run on images {fed.shape[1:]}: {first_line(error)}",
                "check `layout` and the task's images",
            ) from error

    def _open(self) -> tuple[list[Any], list[Any]]:
        """Create a new interpreter, and return its input and output details."""
        from ai_edge_litert.interpreter import Interpreter  # a third of a second, and only where it is used

        try:
            self._interpreter = Interpreter(model_path=str(self.file), num_threads=torch.get_num_threads())
            ends = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        except _FAILURES as error:
            raise ConfigurationError.one(
                f"{self.file} can't be loaded by LiteRT: {first_line(error)}", "export the model again"
            ) from error
        self._shape: tuple[int, ...] | None = None
        return ends

    def _check_ends(self, pixels: bool) -> None:
        plain = self.input.dtype == np.uint8 and not self.input.quantized
        if self.input.integer and not self.input.quantized and not (plain and pixels):
            raise ConfigurationError.one(
                f"{self.file.name} takes {self.input.dtype} without a scale",
                "write `input: raw` for a file of raw uint8 pixels; other integers can't be fed",
            )
        for port, does in ((self.input, "takes"), (self.output, "outputs")):
            if port.dtype.kind not in "iuf":
                raise ConfigurationError.one(f"{self.file.name} {does} {port.dtype}", "give a file of numbers")
        if self.output.integer and not self.output.quantized:
            raise ConfigurationError.one(
                f"{self.file.name} outputs {self.output.dtype}, integers of an unknown scale",
                "give a file with float outputs, or outputs with a scale",
            )

    def _most(self, fed: NDArray[np.float32]) -> int:
        """Return the batch size: a larger one if the resized graph has the same outputs, else the file's own."""
        if self._own >= _AT_ONCE:
            return self._own
        low, high = float(fed.min()), float(fed.max())
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, (_AT_ONCE, *fed.shape[1:]))
        contrast = np.linspace(0.1, 1.0, _AT_ONCE).reshape(-1, *[1] * (fed.ndim - 1))
        pictures = ((low + high) / 2 + (high - low) * contrast * noise).astype(np.float32)
        try:
            alone = self._in_batches(pictures, self._own)
            together = self._in_batches(pictures, _AT_ONCE)
        except _FAILURES:
            self._open()  # an interpreter that failed to resize is of no further use
            return self._own
        within = max(1e-3 * float(np.abs(alone).max()), 2 * self.output.scale if self.output.integer else 0.0)
        same = together.shape == alone.shape and np.allclose(together, alone, rtol=0.0, atol=within)
        return _AT_ONCE if same else self._own

    def _in_batches(self, fed: NDArray[np.float32], size: int) -> NDArray[np.float32]:
        self._allocate((size, *fed.shape[1:]))
        batches = []
        for start in range(0, len(fed), size):
            batch = fed[start : start + size]
            # the last batch is padded with its own last image, and the surplus outputs are dropped
            filled = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])
            self._interpreter.set_tensor(self.input.index, self.input.stored(filled))
            self._interpreter.invoke()
            answers = self.output.real(self._interpreter.get_tensor(self.output.index))
            if answers.shape[:1] != (size,):
                raise ValueError(f"the output for {size} images is {answers.shape}")
            batches.append(answers[: len(batch)])
        return np.concatenate(batches)

    def _allocate(self, shape: tuple[int, ...]) -> None:
        if shape != self._shape:
            self._shape = None
            self._interpreter.resize_tensor_input(self.input.index, shape)
            self._interpreter.allocate_tensors()
            self._shape = shape
