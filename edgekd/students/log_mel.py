"""Log-mel front end inside the graph: a file takes raw samples, and no caller has to compute spectra.

Short-time Fourier transform as a convolution with fixed cosines and sines under a Hann window; squares; a matrix of
triangular filters on the mel scale (O'Shaughnessy 1987: ``2595 log10(1 + f / 700)``), which also adds real and
imaginary part; a logarithm. Four operators that every runtime has, computed in float at every precision. The constants
are as large as a small network: ``2 x bins x window`` values of 16 bits.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # the name torch itself uses

from edgekd.errors import ConfigurationError
from edgekd.records import Record
from edgekd.students.islands import KeptFloat
from edgekd.tasks._protocol import InputSpec

__all__ = ["LogMel", "LogMelFilters"]

_FLOOR = 1e-4  # power that counts as silence; a signal normalised to variance 1 has power 1 a bin


class LogMel(Record):
    """Options. ``window`` and ``hop`` are in seconds, ``low`` and ``high`` in Hz (default: half the sample rate).

    ``rate`` is the sample rate in Hz, default that of the task's WAV files.
    """

    mels: PositiveInt = 40
    window: PositiveFloat = 0.032
    hop: PositiveFloat = 0.016
    low: float = Field(default=20.0, ge=0)
    high: PositiveFloat | None = None
    rate: PositiveInt | None = None

    def shape(self, given: InputSpec) -> tuple[int, int, int]:
        """Return the output shape for a signal: (1, mels, frames). Raises ConfigurationError for unsupported inputs."""
        window, hop = self._steps(given)
        return 1, self.mels, 1 + (given.shape[1] - window) // hop

    def module(self, given: InputSpec) -> LogMelFilters:
        """Build the front end. Raises like `shape`."""
        window, hop = self._steps(given)
        kernels, frequencies = _fourier(window, self._rate(given))
        high = self.high or self._rate(given) / 2
        filters = _triangles(frequencies, self.mels, self.low, high)
        used = filters.any(0)
        doubled = np.concatenate([filters[:, used], filters[:, used]], 1) / _FLOOR
        return LogMelFilters(np.concatenate([part[used] for part in kernels]), doubled, hop)

    def _steps(self, given: InputSpec) -> tuple[int, int]:
        """Return window and hop in samples."""
        if len(given.shape) != 2 or given.shape[0] != 1:
            raise ConfigurationError.one(
                f"log_mel takes a signal of one channel, and this task's input is {given.shape}",
                "leave log_mel out, or write channels: 1 in the task",
            )
        rate = self._rate(given)
        window, hop = round(self.window * rate), max(1, round(self.hop * rate))
        if not 4 <= window <= given.shape[1]:
            raise ConfigurationError.one(
                f"log_mel: a window of {window} samples ({self.window:g} s at {rate} Hz) doesn't fit a signal of "
                f"{given.shape[1]}",
                "write window in seconds, for example 0.032",
            )
        if not self.low < (self.high or rate / 2) <= rate / 2:
            raise ConfigurationError.one(
                f"log_mel: {self.low:g} to {self.high or rate / 2:g} Hz is no range below {rate / 2:g} Hz",
                "lower `low` or `high`",
            )
        _, frequencies = _fourier(window, rate)
        filters = _triangles(frequencies, self.mels, self.low, self.high or rate / 2)
        if not filters.any(1).all():
            raise ConfigurationError.one(
                f"log_mel: {self.mels} filters are too many for a window of {window} samples: some cover no frequency",
                "lower `mels`, or raise `window`",
            )
        return window, hop

    def _rate(self, given: InputSpec) -> int:
        rate = self.rate or (given.sound.rate if given.sound is not None else None)
        if rate is None:
            raise ConfigurationError.one(
                "log_mel needs the sample rate, and this task's samples don't come from WAV files",
                "write log_mel: {rate: 16000}",
            )
        return rate


class LogMelFilters(KeptFloat):
    """Maps (N, 1, T) to (N, 1, mels, frames): ``log(1 + power / floor)``, which is 0 in silence."""

    kernels: Tensor
    filters: Tensor
    ones: Tensor

    def __init__(self, kernels: NDArray[np.float64], filters: NDArray[np.float64], hop: int) -> None:
        """``kernels`` (2 bins, window), ``filters`` (mels, 2 bins)."""
        super().__init__()
        self.hop = hop
        self.register_buffer("kernels", torch.from_numpy(kernels.astype(np.float16)).float()[:, None])
        self.register_buffer("filters", torch.from_numpy(filters.astype(np.float16)).float()[:, :, None])
        self.register_buffer("ones", torch.ones(len(filters)))

    def forward(self, signal: Tensor) -> Tensor:
        parts = F.conv1d(signal, self.kernels, stride=self.hop)
        return torch.log(F.conv1d(parts * parts, self.filters, self.ones)).unsqueeze(1)


def _fourier(window: int, rate: int) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]:
    """Return cosines and sines (bins, window) under a Hann window of unit power, and their frequencies in Hz."""
    steps, bins = np.arange(window), np.arange(window // 2 + 1)
    hann = 0.5 - 0.5 * np.cos(2 * math.pi * steps / window)
    hann /= math.sqrt(float(hann @ hann))
    turns = 2 * math.pi * np.outer(bins, steps) / window
    return (np.cos(turns) * hann, np.sin(turns) * hann), bins * rate / window


def _triangles(frequencies: NDArray[np.float64], mels: int, low: float, high: float) -> NDArray[np.float64]:
    """Return filters (mels, bins), each with sum 1, evenly spaced on the mel scale."""
    ends = 2595 * np.log10(1 + np.asarray([low, high]) / 700)
    corners = 700 * (10 ** (np.linspace(ends[0], ends[1], mels + 2) / 2595) - 1)
    rising = (frequencies - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - frequencies) / (corners[2:] - corners[1:-1])[:, None]
    filters = np.maximum(0.0, np.minimum(rising, falling))
    return np.asarray(filters / np.maximum(filters.sum(1, keepdims=True), 1e-12))
