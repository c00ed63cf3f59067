"""Samples that stay in files."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import MissingError
from edgekd.tasks import mapped
from edgekd.tasks.blocks import blocks
from edgekd.tasks.labelled import LabelledImages
from edgekd.tasks.mapped import gathered, map_array


def resident(of: str = "RssFile") -> int:
    """Bytes of this process's memory that are pages of files."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(of))
    return int(line.split()[1]) * 1024


def samples(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 64, 64), np.uint8)


@pytest.mark.parametrize("most", [0, 2**30])
def test_gathered_parts_come_back(tmp_path, monkeypatch, most):
    monkeypatch.setattr(mapped, "_IN_MEMORY", most)
    monkeypatch.setattr(mapped, "user_cache_path", lambda _name: tmp_path / "cache")
    whole = samples(100)
    found = gathered((whole[start : start + 30] for start in range(0, 100, 30)), np.uint8, whole.shape)
    assert np.array_equal(found, whole)
    assert isinstance(found, np.memmap) == (most == 0)
    assert not list(tmp_path.glob("cache/*"))  # it has no name, and goes with the array


def test_a_full_disk_is_reported_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "_IN_MEMORY", 0)
    monkeypatch.setattr(mapped, "user_cache_path", lambda _name: tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: namedtuple("Usage", "free")(1000))
    with pytest.raises(MissingError, match=r"the samples take 1\.17 MiB, and .* has 1000 B left"):
        gathered(iter([samples(100)]), np.uint8, (100, 3, 64, 64))


@pytest.mark.slow
def test_a_pass_over_a_mapped_array_lets_go_of_what_it_read(tmp_path):
    whole = samples(4000)  # 47 MiB
    whole.tofile(tmp_path / "whole")
    array = map_array(tmp_path / "whole", np.uint8, whole.shape)
    before = resident()
    for block in blocks(array):
        assert array[block].sum() == whole[block].sum()
        assert resident() < before + 24 * 1024**2
    assert np.array_equal(array[-1], whole[-1])


def test_samples_one_behind_the_other_are_not_copied():
    images = LabelledImages(samples(50), np.arange(50))
    part = images.take(np.arange(10, 30))
    assert np.shares_memory(part.inputs, images.inputs)
    assert part.labels.tolist() == list(range(10, 30))


@pytest.mark.parametrize("indices", [[3, 2, 1], [1, 3, 4], [5, 5], []])
def test_other_samples_are(indices):
    images = LabelledImages(samples(50), np.arange(50))
    part = images.take(np.asarray(indices, np.int64))
    assert np.array_equal(part.inputs, images.inputs[indices])
    assert not np.shares_memory(part.inputs, images.inputs)


def test_channels_last_are_brought_first():
    images = LabelledImages(samples(50).transpose(0, 3, 1, 2), np.arange(50))
    part = images.take(np.arange(50))
    assert part.inputs.flags.c_contiguous
    assert np.array_equal(part.inputs, images.inputs)
