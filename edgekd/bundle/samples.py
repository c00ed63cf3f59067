"""``samples.npz``: raw samples, labels and the PyTorch student's answers, to check parity anywhere."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ConfigurationError, Place
from edgekd.tasks._protocol import Rows, TaskSpec
from edgekd.tasks.rows import empty_rows
from edgekd.units import format_bytes

__all__ = ["SAMPLES", "Samples", "how_many", "read_samples", "samples_bytes"]

SAMPLES = "samples.npz"

_FEWEST, _MOST, _MOST_BYTES = 10, 1000, 5_000_000
_LARGEST_BYTES = 1 << 30  # unpacked: ten samples of 2,048 x 2,048 x 3 float32, with room
_ARRAYS = ("inputs", "labels", "answers")


@dataclass(frozen=True)
class Samples:
    """Validation samples: raw inputs (N, C, H, W), labels (N,), the student's answers: logits (N, classes), or rows."""

    inputs: NDArray[np.generic]
    labels: Rows
    answers: Rows


def how_many(sample: NDArray[np.generic], available: int) -> int:
    """Number of samples that fit in about five megabytes, a thousand at most and ten at least."""
    return min(available, _MOST, max(_FEWEST, _MOST_BYTES // max(1, sample.nbytes)))


def samples_bytes(samples: Samples) -> bytes:
    """The file's content."""
    stream = io.BytesIO()
    np.savez_compressed(stream, inputs=samples.inputs, labels=samples.labels, answers=samples.answers)
    return stream.getvalue()


def read_samples(path: Path, spec: TaskSpec) -> Samples:
    """Read samples of a task back. The file may be a stranger's: what it would unpack to is looked at first.

    Raises ConfigurationError on a file that isn't such samples, OSError where it can't be opened.
    """
    place = Place(str(path))
    try:
        with ZipFile(path) as archive:
            sizes = [_unpacked_bytes(archive, name) for name in _ARRAYS]
        if sum(sizes) > _LARGEST_BYTES:
            raise ConfigurationError.one(
                f"unpacks to {format_bytes(sum(sizes))}, and samples have {format_bytes(_LARGEST_BYTES)} at the most",
                "get the bundle again",
                place,
            )
        with np.load(path, allow_pickle=False) as file:
            samples = Samples(*(file[name] for name in _ARRAYS))
        problem = _problem(samples, spec)
    except (ConfigurationError, OSError):
        raise
    except Exception as error:  # zip, zlib and numpy's readers of headers raise whatever damaged bytes lead to
        raise ConfigurationError.one(
            f"is not a bundle's samples: {error or type(error).__name__}", "get the bundle again", place
        ) from error
    if problem:
        raise ConfigurationError.one(f"is not this bundle's samples: {problem}", "get the bundle again", place)
    return samples


def _unpacked_bytes(archive: ZipFile, name: str) -> int:
    """Size of an array in bytes, by its own header. Raises ValueError where the member holds something else."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as stream:
        old = np.lib.format.read_magic(stream) == (1, 0)
        # the later versions' headers differ in how names of fields are written, and not in shapes
        read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or dtype.hasobject or info.file_size != stream.tell() + size:
            raise ValueError(f"`{name}` holds {info.file_size} bytes, and its header says {dtype} {shape}")
    return size


def _problem(samples: Samples, spec: TaskSpec) -> str:
    """Mismatch of samples and task, with what was expected; empty where there is none."""
    count = len(samples.inputs) if samples.inputs.ndim else 0
    given = (spec.input.raw_dtype, (count, *spec.input.shape))
    if not count or (samples.inputs.dtype.name, samples.inputs.shape) != given:
        return f"inputs are {samples.inputs.dtype} {samples.inputs.shape}, not {given[0]} {given[1]}"
    whole = samples.labels.dtype.kind in "iu" if spec.plain else set(samples.labels.dtype.names or ()) == _names(spec)
    if samples.labels.shape != (count,) or not whole:
        return f"labels are {samples.labels.dtype} {samples.labels.shape}, not one a sample"
    answers = empty_rows(spec, 0)
    if (samples.answers.dtype, samples.answers.shape) != (answers.dtype, (count, *answers.shape[1:])):
        return f"answers are {samples.answers.dtype} {samples.answers.shape}, not those of {len(spec.heads)} heads"
    return ""


def _names(spec: TaskSpec) -> set[str]:
    return {head.name for head in spec.heads}
