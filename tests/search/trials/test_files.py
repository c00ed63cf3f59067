"""A file comes back to the address it had, weights and all."""

from __future__ import annotations

from pathlib import Path

from edgekd.artefacts import Artefact
from edgekd.search.trials.files import keep_newest, keep_only, place


def model(folder: Path, suffix: str, text: str = "model") -> Artefact:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"model{suffix}"
    path.write_text(text)
    if suffix == ".xml":
        path.with_suffix(".bin").write_text("weights")
    return Artefact.of(path)


def test_equal_content_has_one_address(tmp_path: Path) -> None:
    first = place(model(tmp_path / "a", ".onnx"), tmp_path / "artefacts")
    first.path.unlink()
    second = place(model(tmp_path / "b", ".onnx"), tmp_path / "artefacts")
    assert second == first
    assert Artefact.of(second.path) == second
    assert place(second, tmp_path / "artefacts") == second


def test_weights_come_along(tmp_path: Path) -> None:
    placed = place(model(tmp_path / "a", ".xml"), tmp_path / "artefacts")
    assert placed.path.with_suffix(".bin").read_text() == "weights"
    assert Artefact.of(placed.path) == placed
    assert len(list((tmp_path / "artefacts").iterdir())) == 2


def test_what_is_not_kept_is_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "artefacts"
    keep = place(model(tmp_path / "a", ".xml"), folder)
    place(model(tmp_path / "b", ".onnx"), folder)
    keep_only(folder, {keep.sha256})
    assert {path.suffix for path in folder.iterdir()} == {".xml", ".bin"}
    keep_only(tmp_path / "nowhere", set())


def test_the_oldest_students_go_first(tmp_path: Path) -> None:
    import os

    for age, name in enumerate(("c", "a", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(bytes(100))
        os.utime(tmp_path / name, ns=(age, age))
    keep_newest(tmp_path, 300)
    assert len(list(tmp_path.iterdir())) == 3
    keep_newest(tmp_path, 250)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
    keep_newest(tmp_path, 10)  # the newest is somebody's present work
    assert {path.name for path in tmp_path.iterdir()} == {"b"}
    keep_newest(tmp_path / "none", 10)
