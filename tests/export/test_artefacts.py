"""One table of formats: what their files are called, and which files a model has."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.artefacts import Artefact, Format
from edgekd.errors import UnknownName
from edgekd.ir.backends import BACKENDS
from edgekd.records import digest_bytes, digest_file


@pytest.mark.parametrize("file_format", list(Format))
def test_every_format_is_known_by_its_suffix(file_format: Format) -> None:
    assert Format.of(Path(f"model{file_format.suffix}")) is file_format
    assert file_format.converter
    assert any(file_format in spec.formats for spec in BACKENDS.values())


def test_other_suffixes_are_unknown() -> None:
    with pytest.raises(UnknownName, match=r"no model format `\.pt`"):
        Format.of(Path("model.pt"))


def test_weights_beside_a_model_are_a_part_of_it(tmp_path: Path) -> None:
    path, weights = tmp_path / "model.xml", tmp_path / "model.bin"
    path.write_bytes(b"<net/>")
    alone = Artefact.of(path)
    assert alone.files == (path,)
    assert alone.sha256 == digest_file(path)
    weights.write_bytes(b"1234")
    whole = Artefact.of(path)
    assert whole.files == Format.OPENVINO.files(path) == (path, weights)
    assert whole.size_bytes == 10
    # the digest that runs and bundles of earlier versions have recorded
    assert whole.sha256 == digest_bytes(f"{digest_file(path)}{digest_file(weights)}".encode())


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite"])
def test_what_lies_beside_another_model_is_none_of_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"1")
    (tmp_path / "model.bin").write_bytes(b"1234")
    assert Artefact.of(path).files == (path,)
    assert Artefact.of(path).size_bytes == 1
