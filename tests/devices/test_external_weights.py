"""A model whose weights lie in a file of their own, as torch writes it: measured, run, and known when it changes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import Job, MeasurePlan, Outcome
from edgekd.devices.local import LocalDevice
from edgekd.export.kernels.read import kernels_of_file
from edgekd.search.trials.files import keep_only, place

pytestmark = pytest.mark.runtime

PLAN = MeasurePlan(processes=1, rounds=2, round_ms=2.0, warmup_ms=2.0)
SAMPLES = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(1024, 10)
    return torch.nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    torch.onnx.export(network(), (torch.zeros(1, 3, 8, 8),), path, dynamo=True, external_data=True, verbose=False)
    assert (path.parent / "model.onnx.data").stat().st_size > 40_000
    return path


@pytest.fixture
def model(exported: Path, tmp_path: Path) -> Path:
    for file in exported.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path / exported.name


@pytest.fixture
def device(tmp_path: Path) -> LocalDevice:
    return LocalDevice(name=f"test-{tmp_path.name}-{time.monotonic_ns()}")


@pytest.mark.parametrize("backend", ["onnxruntime/cpu", "openvino/cpu"])
def test_it_is_measured_and_answers(device: LocalDevice, model: Path, tmp_path: Path, backend: str) -> None:
    job = Job(artefact=Artefact.of(model), backend=Backend.model_validate(backend))
    assert job.artefact.size_bytes == sum(file.stat().st_size for file in model.parent.glob("model.onnx*"))
    np.save(tmp_path / "x.npy", SAMPLES)
    with device.open() as session:
        assert session.prepare([job]) == {job: None}
        (measured,) = session.measure([job], PLAN)
        answer = session.run(job, [tmp_path / "x.npy"])
        assert measured.outcome is answer.outcome is Outcome.OK, measured.detail + answer.detail
        wanted = network()(torch.from_numpy(SAMPLES)).detach().numpy()
        np.testing.assert_allclose(np.load(answer.outputs[0]).reshape(2, 10), wanted, atol=1e-3)
    assert measured.sha256 == job.artefact.sha256


@pytest.mark.parametrize("change", ["a byte", "gone"])
def test_changed_weights_are_refused(device: LocalDevice, model: Path, change: str) -> None:
    artefact, weights = Artefact.of(model), model.parent / "model.onnx.data"
    job = Job(artefact=artefact, backend=Backend.model_validate("onnxruntime/cpu"))
    with device.open() as session:
        assert session.prepare([job]) == {job: None}
        data = bytearray(weights.read_bytes())
        data[1000] ^= 1
        weights.unlink() if change == "gone" else weights.write_bytes(data)
        (measured,) = session.measure([job], PLAN)
    assert measured.outcome is Outcome.REFUSED
    assert "its content has changed" in measured.detail
    if change == "a byte":
        assert Artefact.of(model).sha256 != artefact.sha256


def test_its_kernels_are_read(model: Path) -> None:
    kinds = [kernel.kind for kernel in kernels_of_file(Artefact.of(model))]
    assert kinds[0] == "conv"
    assert "dense" in kinds


def test_a_place_of_its_own_in_a_run(model: Path, tmp_path: Path) -> None:
    artefact, folder = Artefact.of(model), tmp_path / "artefacts"
    placed = place(artefact, folder)
    assert Artefact.of(placed.path) == placed
    assert placed.sha256 == artefact.sha256
    assert place(placed, folder) == placed
    keep_only(folder, {artefact.sha256})
    assert Artefact.of(placed.path) == placed
    keep_only(folder, ())
    assert not list(folder.iterdir())
