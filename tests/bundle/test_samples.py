from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.bundle.samples import Samples, how_many, read_samples, samples_bytes
from edgekd.errors import ConfigurationError


def test_written_and_read_back(samples: Samples, tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    path.write_bytes(samples_bytes(samples))
    again = read_samples(path)
    for name in ("inputs", "labels", "answers"):
        np.testing.assert_array_equal(getattr(again, name), getattr(samples, name))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 torn"])
def test_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "samples.npz"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"samples\.npz"):
        read_samples(path)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, inputs=np.array([{}], dtype=object), labels=np.zeros(1), answers=np.zeros((1, 2)))
    with pytest.raises(ConfigurationError):
        read_samples(path)


def test_arrays_of_other_lengths_are_refused(samples: Samples, tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    path.write_bytes(samples_bytes(Samples(samples.inputs, samples.labels[:3], samples.answers)))
    with pytest.raises(ConfigurationError, match="belong together"):
        read_samples(path)


@pytest.mark.parametrize(("nbytes", "count"), [(64, 1000), (150_528, 33), (20_000, 250), (10_000_000, 10)])
def test_how_many_fit(nbytes: int, count: int) -> None:
    assert how_many(np.zeros(nbytes, dtype=np.uint8), 5000) == count
    assert how_many(np.zeros(nbytes, dtype=np.uint8), 4) == 4
