"""A full disk, and damage in a run's folder: the same command makes again what can be had back, and says what can't."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.journey


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(bytes(data))


def _assert_whole(bundle: Path) -> str:
    """Every file is what the certificate says; the digest of the model."""
    from edgekd.bundle.contents import contents_of
    from edgekd.store.certificate import Certificate
    from edgekd.store.schema import read_record

    certificate = read_record(bundle / "certificate.json", Certificate)
    assert contents_of(bundle, certificate).problems == ()
    return next(file.sha256 for file in certificate.files if file.role == "model")


# every process of the command finds the disk full when it writes a model, for as long as the file is there
FULL_DISK = """
    import os, pathlib
    plain = pathlib.Path.write_bytes

    def write_bytes(path, data):
        if path.suffix == ".onnx" and os.path.exists(os.environ["DISK_IS_FULL"]):
            raise OSError(28, "No space left on device", str(path))
        return plain(path, data)

    pathlib.Path.write_bytes = write_bytes
"""


def test_faults_and_damage_leave_nothing_wrong_behind(edgekd):
    edgekd.change("project.yaml", "width: [8, 16]", "width: [8, 8]")
    edgekd.write("full/sitecustomize.py", textwrap.dedent(FULL_DISK))
    full = edgekd.write("disk-is-full", "")
    edgekd.environment |= {"PYTHONPATH": str(edgekd.folder / "full"), "DISK_IS_FULL": str(full)}
    command = ("distill", "project.yaml", "--run", "run")
    stopped = edgekd(*command)
    assert stopped.returncode == 4, stopped.stdout + stopped.stderr
    assert "No space left on device" in stopped.stderr
    assert not (edgekd.folder / "run" / "outcome.json").exists()
    assert not list(edgekd.folder.glob("run/finalists/*"))

    full.unlink()
    del edgekd.environment["PYTHONPATH"]
    done = edgekd(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    run = edgekd.folder / "run"
    model = _assert_whole(run / "bundle")
    (artefact,) = (run / "artefacts").iterdir()

    # the bundle alone is made of what is in the run, and what is damaged is never handed over
    (run / "bundle" / "model.onnx").write_bytes(b"ONNX")
    assert edgekd("export", "run", "--output", "out").returncode == 0
    assert _assert_whole(edgekd.folder / "out") == _assert_whole(run / "bundle") == model

    # the file that the bundle is made of is converted again, of a student that is trained again
    _flip(artefact)
    student = run / "students" / json.loads((run / "finalists" / "01.json").read_text())["student"]
    _flip(student / "weights.safetensors")
    (run / "bundle" / "model.onnx").unlink()
    refused = edgekd("export", "run")
    assert refused.returncode == 3
    assert "is damaged or gone" in " ".join(refused.stderr.split())
    done = edgekd(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"damaged or gone, and made again: students/{student.name}, artefacts/{artefact.name}" in done.stderr
    assert _assert_whole(run / "bundle") == model

    # what was asked for can't be had back from anywhere
    (run / "run.json").write_text("{")
    lost = edgekd(*command)
    assert lost.returncode == 3
    assert "begin again in another folder" in " ".join(lost.stderr.split())
    (run / "run.json").unlink()
    assert "of a run whose run.json is gone" in " ".join(edgekd(*command).stderr.split())
