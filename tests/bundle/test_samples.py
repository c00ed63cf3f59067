from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from edgekd.bundle import write
from edgekd.bundle.samples import Samples, how_many, read_samples, samples_bytes
from edgekd.errors import ConfigurationError
from edgekd.export._protocol import ExportOptions
from edgekd.tasks._protocol import Split, TaskSpec


def test_written_and_read_back(samples: Samples, spec: TaskSpec, tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    path.write_bytes(samples_bytes(samples))
    again = read_samples(path, spec)
    for name in ("inputs", "labels", "answers"):
        np.testing.assert_array_equal(getattr(again, name), getattr(samples, name))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 torn"])
def test_anything_else_is_refused(spec: TaskSpec, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "samples.npz"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"samples\.npz"):
        read_samples(path, spec)


def test_pickled_arrays_are_refused(spec: TaskSpec, tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, inputs=np.array([{}], dtype=object), labels=np.zeros(1), answers=np.zeros((1, 2)))
    with pytest.raises(ConfigurationError, match="its header says object"):
        read_samples(path, spec)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": np.zeros(3, np.int64)}, r"labels are int64 \(3,\)"),
        ({"labels": np.zeros(20, np.float32)}, "labels are float32"),
        ({"labels": np.array(0)}, r"labels are int64 \(\)"),
        ({"inputs": np.array(["a"] * 20)}, "inputs are <U1"),
        ({"inputs": np.zeros((20, 3, 4, 6), np.uint8)}, r"not uint8 \(20, 3, 4, 5\)"),
        ({"inputs": np.zeros((0, 3, 4, 5), np.uint8)}, "inputs are"),
        ({"inputs": np.array(0, np.uint8)}, "inputs are"),
        ({"answers": np.zeros((20, 4), np.float32)}, r"answers are float32 \(20, 4\)"),
        ({"answers": np.zeros(20, [("a", np.float32, 3)])}, "answers are"),
    ],
)
def test_arrays_of_another_task_are_refused(
    samples: Samples, spec: TaskSpec, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = tmp_path / "samples.npz"
    path.write_bytes(samples_bytes(dataclasses.replace(samples, **changes)))
    with pytest.raises(ConfigurationError, match=said):
        read_samples(path, spec)


@pytest.mark.parametrize("shape", ["(6000000000,)", "(64000000000000,)", "(-1,)", "(3,)"])
def test_what_unpacks_to_too_much_is_refused_by_its_header(spec: TaskSpec, tmp_path: Path, shape: str) -> None:
    path = tmp_path / "samples.npz"
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    with ZipFile(path, "w") as archive:
        for name in ("inputs", "labels", "answers"):
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"1234")
    with pytest.raises(ConfigurationError, match="its header says"):
        read_samples(path, spec)


@pytest.mark.slow
def test_a_zip_that_unpacks_to_gigabytes_is_not_unpacked(
    spec: TaskSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "samples.npz"
    zeros = np.broadcast_to(np.zeros(1, np.uint8), (200_000_000,))
    np.savez_compressed(path, inputs=zeros, labels=zeros[:10], answers=zeros[:10])
    monkeypatch.setattr("edgekd.bundle.samples._LARGEST_BYTES", 1 << 20)
    with pytest.raises(ConfigurationError, match=r"unpacks to 191 MiB"):
        read_samples(path, spec)


@pytest.mark.parametrize(("nbytes", "count"), [(64, 1000), (150_528, 33), (20_000, 250), (10_000_000, 10)])
def test_how_many_fit(nbytes: int, count: int) -> None:
    assert how_many(np.zeros(nbytes, dtype=np.uint8), 5000) == count
    assert how_many(np.zeros(nbytes, dtype=np.uint8), 4) == 4


def test_a_bundles_samples_are_of_every_class_where_validation_is_in_order_of_classes(
    spec: TaskSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.repeat(np.arange(3), 500)
    raw = np.tile(labels[:, None, None, None], (1, *spec.input.shape)).astype(np.uint8)
    report = SimpleNamespace(holds=True, samples=1000, agree=1000, largest=0.0, unit="", expected=np.zeros((1000, 3)))
    monkeypatch.setattr(write, "file_answers", lambda _session, _job, _student, asked, *_: asked)
    monkeypatch.setattr(write, "compared", lambda *_: report)
    task: Any = SimpleNamespace(split=lambda name: Split(name, raw, labels, "0" * 64))
    student: Any = SimpleNamespace(task=spec)
    none: Any = None
    found, _ = write._checked_samples(none, student, task, ExportOptions(), none, tmp_path)
    assert set(np.unique(found.labels)) == {0, 1, 2}
    assert (found.inputs[:, 0, 0, 0] == found.labels).all()
