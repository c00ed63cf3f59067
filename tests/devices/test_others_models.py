"""Models of other people on the real runtimes: free axes, several inputs of any type, more threads, a busy machine."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper

from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import Job, Load, MeasurePlan, Outcome
from edgekd.devices.diagnostic import null_job
from edgekd.devices.local import LocalDevice

pytestmark = pytest.mark.runtime

PLAN = MeasurePlan(processes=2, rounds=3, round_ms=2.0, warmup_ms=2.0)
BACKENDS = ("onnxruntime/cpu", "openvino/cpu")


@pytest.fixture
def device(tmp_path: Path) -> LocalDevice:
    return LocalDevice(name=f"test-{tmp_path.name}-{time.monotonic_ns()}")


def save(folder: Path, nodes: list[object], inputs: list[object], outputs: list[object]) -> Artefact:
    graph = helper.make_graph(nodes, "net", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = folder / "net.onnx"
    onnx.save(model, path)
    return Artefact.of(path)


@pytest.fixture
def free(tmp_path: Path) -> Artefact:
    """A rectifier of pictures of any size."""
    tensor = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, "h", "w"]) for name in "xy"]
    return save(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], tensor[:1], tensor[1:])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_free_shape_is_asked_for(device: LocalDevice, free: Artefact, backend: str) -> None:
    job = Job(artefact=free, backend=Backend.model_validate(backend))
    asked = [job, job.but(shapes=(("", (1, 4, 8, 8)),)), *(job.but(shapes=(("x", (1, 3, s, s)),)) for s in (8, 640))]
    with device.open() as session:
        unasked, wrong, small, large = session.measure(asked, PLAN.but(profile=True))
    assert unasked.outcome is wrong.outcome is Outcome.REFUSED
    assert unasked.detail == "input `x` is ?x3x?x?: ask for a shape, as --shape x=1x3x224x224"
    assert wrong.detail == "input `x` is ?x3x?x?, not 1x4x8x8"
    assert small.outcome is large.outcome is Outcome.OK, small.detail + large.detail
    assert large.shapes == (("x", (1, 3, 640, 640)),)
    assert min(p.p5_us for p in large.processes) > 2 * max(p.p5_us for p in small.processes)
    assert large.operators, large.operators_detail


def test_a_tflite_file_of_any_batch(device: LocalDevice, tmp_path: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    from tests.devices.test_local import one_layer

    made = one_layer(tmp_path, np.ones((4, 3), np.float32))
    model = schema.ModelT.InitFromPackedBuf(made.path.read_bytes(), 0)
    for tensor in model.subgraphs[0].tensors:
        if tensor.name in (b"x", b"y"):
            tensor.shapeSignature = [-1, *tensor.shape[1:]]
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    made.path.write_bytes(bytes(builder.Output()))
    job = Job(artefact=Artefact.of(made.path), backend=Backend.model_validate("litert/xnnpack"))
    np.save(tmp_path / "samples.npy", np.ones((6, 3), np.float32))
    with device.open() as session:
        four = job.but(shapes=(("x", (4, 3)),))
        one, many, wrong = session.measure([job, four, job.but(shapes=(("", (4, 2)),))], PLAN)
        answer = session.run(four, [tmp_path / "samples.npy"])
        np.testing.assert_allclose(np.load(answer.outputs[0]), np.full((6, 4), 3.0))
    assert one.outcome is many.outcome is Outcome.OK, one.detail + many.detail
    assert wrong.detail == "input `x` is ?x3, not 4x2"


def test_several_inputs_of_any_type(device: LocalDevice, tmp_path: Path) -> None:
    types = {"a": TensorProto.INT64, "b": TensorProto.BOOL, "c": TensorProto.UINT8, "d": TensorProto.DOUBLE}
    inputs = [helper.make_tensor_value_info(name, kind, [2]) for name, kind in types.items()]
    casts = [helper.make_node("Cast", [name], [f"{name}_"], to=TensorProto.FLOAT) for name in types]
    total = helper.make_node("Sum", [f"{name}_" for name in types], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    made = save(tmp_path, [*casts, total], inputs, [output])
    jobs = [Job(artefact=made, backend=Backend.model_validate(backend)) for backend in BACKENDS]
    with device.open() as session:
        results = session.measure(jobs, PLAN)
    assert [(result.outcome, result.detail) for result in results] == [(Outcome.OK, "")] * 2


def test_words_are_refused_by_name(device: LocalDevice, tmp_path: Path) -> None:
    tensor = [helper.make_tensor_value_info(name, TensorProto.STRING, [1]) for name in "xy"]
    made = save(tmp_path, [helper.make_node("Identity", ["x"], ["y"])], tensor[:1], tensor[1:])
    with device.open() as session:
        (result,) = session.measure([Job(artefact=made, backend=Backend.model_validate("onnxruntime/cpu"))], PLAN)
    assert (result.outcome, result.detail) == (
        Outcome.REFUSED,
        "input `x` is of string: only numbers can be made up",
    )


def test_each_job_has_its_threads(device: LocalDevice, free: Artefact) -> None:
    shapes = (("", (1, 3, 8, 8)),)
    jobs = [Job(artefact=free, backend=Backend.model_validate(BACKENDS[0]), threads=n, shapes=shapes) for n in (1, 3)]
    seen: set[str] = set()

    def look(*_: object) -> None:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "worker" in process.cmdline():
                    seen.add(process.environ()["OMP_NUM_THREADS"])

    with device.open() as session:
        results = session.measure(jobs, PLAN.but(sentinel=False, processes=4, rounds=10, round_ms=20.0), look)
    assert [result.plan.threads for result in results] == [1, 3]
    assert seen == {"1", "3"}


def test_cores_are_busy_meanwhile_and_no_longer(device: LocalDevice, tmp_path: Path) -> None:
    burning, measured = list[int](), threading.Event()

    def count() -> int:
        found = 0
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                found += "burn" in process.cmdline()
        return found

    def watch() -> None:
        while not measured.is_set():
            burning.append(count())

    with device.open() as session:
        plan = PLAN.but(load=Load(busy=2), processes=1, rounds=8, round_ms=50.0)
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            (result,) = session.measure([null_job(tmp_path, "spin=50")], plan)
        finally:
            measured.set()
            watcher.join()
        assert max(burning) == 2
        assert count() == 0
    assert result.plan.load.busy == 2
