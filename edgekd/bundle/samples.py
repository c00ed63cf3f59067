"""``samples.npz``: raw samples, labels and the PyTorch student's answers, to check parity anywhere."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ConfigurationError, Place
from edgekd.tasks._protocol import Rows

__all__ = ["SAMPLES", "Samples", "how_many", "read_samples", "samples_bytes"]

SAMPLES = "samples.npz"

_FEWEST, _MOST, _MOST_BYTES = 10, 1000, 5_000_000


@dataclass(frozen=True)
class Samples:
    """Validation samples: raw inputs (N, C, H, W), labels (N,), the student's answers: logits (N, classes), or rows."""

    inputs: NDArray[np.generic]
    labels: Rows
    answers: Rows


def how_many(sample: NDArray[np.generic], available: int) -> int:
    """As many as fit in about five megabytes, a thousand at most and ten at least."""
    return min(available, _MOST, max(_FEWEST, _MOST_BYTES // max(1, sample.nbytes)))


def samples_bytes(samples: Samples) -> bytes:
    """The file's content."""
    stream = io.BytesIO()
    np.savez_compressed(stream, inputs=samples.inputs, labels=samples.labels, answers=samples.answers)
    return stream.getvalue()


def read_samples(path: Path) -> Samples:
    """Read them back. Raises ConfigurationError on a file that isn't such samples."""
    try:
        with np.load(path, allow_pickle=False) as file:
            samples = Samples(file["inputs"], file["labels"], file["answers"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigurationError.one(
            f"is not a bundle's samples: {error}", "get the bundle again", Place(str(path))
        ) from error
    axes = 2 if samples.answers.dtype.names is None else 1
    if not len(samples.inputs) == len(samples.labels) == len(samples.answers) > 0 or samples.answers.ndim != axes:
        raise ConfigurationError.one("inputs, labels and answers don't belong together", place=Place(str(path)))
    return samples
