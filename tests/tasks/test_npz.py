"""Arrays of a .npz file."""

from __future__ import annotations

import contextlib
import shutil
from types import SimpleNamespace
from zipfile import ZipFile

import numpy as np
import pytest

from edgekd.errors import ConfigurationError, MissingError, UnknownName
from edgekd.tasks import mapped, npz
from edgekd.tasks.npz import array_layout, array_names, read_array

ARRAYS = {
    "x": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "names": np.array(["a", "bc"]),
    "f": np.eye(3, order="F"),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back(tmp_path, save):
    save(tmp_path / "data.npz", **ARRAYS)
    assert set(array_names(tmp_path / "data.npz")) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert np.array_equal(read_array(tmp_path / "data.npz", name), array)


def test_uncompressed_arrays_stay_on_disk(tmp_path):
    np.savez(tmp_path / "data.npz", **ARRAYS)
    assert isinstance(read_array(tmp_path / "data.npz", "x"), np.memmap)


def test_large_compressed_arrays_are_unpacked_to_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(mapped, "_IN_MEMORY", 0)
    monkeypatch.setattr(npz, "_BLOCK", 30)
    np.savez_compressed(tmp_path / "data.npz", **ARRAYS, long=np.arange(100, dtype=np.int16))
    for name in ("x", "long"):
        found = read_array(tmp_path / "data.npz", name)
        assert isinstance(found, np.memmap)
        assert np.array_equal(found, {**ARRAYS, "long": np.arange(100)}[name])
    assert list((tmp_path / "cache" / "edgekd").iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    del found
    with pytest.raises(MissingError, match=r"the samples take 24 B, and .* has 10 B left"):
        read_array(tmp_path / "data.npz", "x")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(MissingError, match=r"samples can't be written to .*: Not a directory"):
        read_array(tmp_path / "data.npz", "x")


def test_an_array_that_is_in_use_is_unpacked_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(mapped, "_IN_MEMORY", 0)
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=np.arange(100))
    found = read_array(path, "x")
    assert read_array(path, "x") is found
    assert array_layout(path, "x") == (np.dtype(np.int64), (100,))
    np.savez_compressed(path, x=np.arange(200))
    assert len(read_array(path, "x")) == 200


def test_a_missing_array_offers_the_nearest(tmp_path):
    np.savez(tmp_path / "data.npz", x_train=np.zeros(2))
    with pytest.raises(UnknownName, match="x_train"):
        read_array(tmp_path / "data.npz", "x_trian")


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ConfigurationError, match="can't be read"):
        read_array(tmp_path / "data.npz", "x")


@pytest.mark.slow
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_byte_is_refused_or_does_no_harm(tmp_path, save):
    path = tmp_path / "data.npz"
    save(path, x=np.arange(40.0))
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.suppress(ConfigurationError):
            read_array(path, "x")


def test_a_flipped_byte_of_an_uncompressed_array_is_found(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.arange(4000, dtype=np.uint8))
    whole = bytearray(path.read_bytes())
    whole[2000] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ConfigurationError, match=r"array `x` of .*data\.npz can't be read: Bad CRC-32"):
        read_array(path, "x")


def test_the_checksum_is_read_once(tmp_path, monkeypatch):
    path, opened = tmp_path / "data.npz", []
    np.savez(path, x=np.arange(4000, dtype=np.uint8))
    monkeypatch.setattr(ZipFile, "open", lambda *a, _was=ZipFile.open, **k: opened.append(a) or _was(*a, **k))
    for _ in range(3):
        read_array(path, "x")
    assert len(opened) == 1


def test_a_file_cut_off_is_refused(tmp_path):
    np.savez(tmp_path / "data.npz", **ARRAYS)
    whole = (tmp_path / "data.npz").read_bytes()
    (tmp_path / "data.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigurationError, match=r"\.npz"):
        read_array(tmp_path / "data.npz", "x")
