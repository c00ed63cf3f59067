"""This computer, through the real agent: the shared contract, the real runtimes, and what is left behind."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import flatbuffers
import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.agent.conditions import conditions
from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import Device, Job, Load, MeasurePlan, Outcome
from edgekd.devices.catalogue import probe_device
from edgekd.devices.diagnostic import null_job
from edgekd.devices.link import PipeLink
from edgekd.devices.local import LocalDevice
from edgekd.devices.zipapp import agent_path
from edgekd.errors import DeviceUnreachable, MissingError
from edgekd.testing.contracts.device import DeviceContract

pytestmark = pytest.mark.runtime  # agents and what they measure, in processes of their own

QUICK = MeasurePlan(processes=2, rounds=3, round_ms=5.0, warmup_ms=5.0)


@pytest.fixture
def device(tmp_path: Path) -> LocalDevice:
    """A name of its own, so that tests may run beside each other."""
    return LocalDevice(name=f"test-{tmp_path.name}-{time.monotonic_ns()}")


class TestLocalDevice(DeviceContract):
    @pytest.fixture
    def make_device(self, device: LocalDevice) -> Callable[[], Device]:
        return lambda: device


def test_it_says_what_it_is_while_it_is_in_use(device: LocalDevice) -> None:
    with device.open() as session:
        probed = probe_device("this-computer")
        assert probed.fingerprint == session.describe()
        assert probed.in_use == f"the device this-computer is in use by process {os.getpid()}"
        assert probed.lines()[-1] == f"  in use        {probed.in_use}"
    assert probe_device("this-computer").in_use == ""


@pytest.fixture
def weights() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)


@pytest.fixture
def onnx_model(tmp_path: Path, weights: np.ndarray) -> Artefact:
    """``y = relu(x @ weights.T)`` with a free batch axis."""
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["h"], transB=1), helper.make_node("Relu", ["h"], ["y"])],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return Artefact.of(path)


@pytest.fixture
def tflite_model(tmp_path: Path, weights: np.ndarray) -> Artefact:
    """The same function."""
    return one_layer(tmp_path, weights)


def one_layer(folder: Path, weights: np.ndarray) -> Artefact:
    """One FULLY_CONNECTED with a fused RELU, for TFLite."""
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: bytes, shape: list[int], buffer: int) -> object:
        made = schema.TensorT()
        made.name, made.shape, made.buffer, made.type = name, shape, buffer, schema.TensorType.FLOAT32
        return made

    options = schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    operator = schema.OperatorT()
    operator.inputs, operator.outputs, operator.builtinOptions = [0, 1, -1], [2], options
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    graph = schema.SubGraphT()
    outputs, inputs = weights.shape
    graph.tensors = [tensor(b"x", [1, inputs], 0), tensor(b"w", [outputs, inputs], 1), tensor(b"y", [1, outputs], 0)]
    graph.inputs, graph.outputs, graph.operators = [0], [2], [operator]
    buffers = [schema.BufferT(), schema.BufferT()]
    buffers[1].data = np.frombuffer(weights.tobytes(), np.uint8)
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes, model.buffers = 3, [graph], [code], buffers
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = folder / "layer.tflite"
    path.write_bytes(bytes(builder.Output()))
    return Artefact.of(path)


def job(artefact: Artefact, backend: str) -> Job:
    return Job(artefact=artefact, backend=Backend.model_validate(backend))


def test_every_backend_measures_and_answers(
    device: LocalDevice, onnx_model: Artefact, tflite_model: Artefact, weights: np.ndarray, tmp_path: Path
) -> None:
    jobs = [
        job(onnx_model, "onnxruntime/cpu"),
        job(onnx_model, "openvino/cpu"),
        job(tflite_model, "openvino/cpu"),
        job(tflite_model, "litert/xnnpack"),
        job(tflite_model, "litert/builtin"),
    ]
    samples = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
    np.save(tmp_path / "samples.npy", samples)
    with device.open() as session:
        results = session.measure(jobs, QUICK.but(profile=True))
        assert [(result.outcome, result.detail) for result in results] == [(Outcome.OK, "")] * len(jobs)
        for result in results:
            for sample in result.processes:
                assert 0 < sample.min_us < 10_000
                assert (sample.runtime_us is not None) == (result.backend.runtime == "openvino")
                assert sample.runtime_us is None or sample.runtime_us <= sample.p50_us
                if sample.runtime_us is not None:
                    assert sample.runtime_p50_us is not None
                    assert sample.runtime_us <= sample.runtime_p50_us <= sample.p50_us
        assert [bool(result.operators) for result in results] == [True, True, True, False, False]
        assert [bool(result.operators_detail) for result in results] == [False, False, False, True, True]
        assert "too little to go by" in results[3].operators_detail  # a layer of twelve weights takes no microsecond
        whole, none = results[3].delegation, results[4].delegation
        assert whole is not None
        assert none is not None
        assert (whole.total, whole.delegated, whole.left_out) == (1, 1, ())
        assert (none.total, none.delegated, none.left_out) == (1, 0, ("FULLY_CONNECTED",))
        for one in jobs:
            answer = session.run(one, [tmp_path / "samples.npy"])
            assert answer.outcome is Outcome.OK, answer.detail
            np.testing.assert_allclose(np.load(answer.outputs[0]), np.maximum(samples @ weights.T, 0), atol=1e-5)


def test_operators_that_take_microseconds_are_timed(device: LocalDevice, tmp_path: Path) -> None:
    large = one_layer(tmp_path, np.ones((1024, 1024), np.float32))
    with device.open() as session:
        (result,) = session.measure([job(large, "litert/xnnpack")], QUICK.but(profile=True))
    times = {operator.kind: operator.time_us for operator in result.operators}
    assert max(times.values(), default=0.0) > 5, result.operators_detail
    assert "Fully Connected" in max(times, key=lambda kind: times[kind])


def test_operators_of_every_partition_are_listed(device: LocalDevice, tmp_path: Path) -> None:
    """Two equal layers, and between them an operator that XNNPACK leaves: LiteRT's summary has one row for both."""
    from ai_edge_litert import schema_py_generated as schema

    from edgekd.export.tflite.flatbuffer import add_operator, add_tensor, read_model, write_model

    path = one_layer(tmp_path, np.ones((1024, 1024), np.float32)).path
    model = read_model(path.read_bytes())
    graph = model.subgraphs[0]
    layer, weights, float32 = graph.operators[0], int(graph.operators[0].inputs[1]), schema.TensorType.FLOAT32
    axis = add_tensor(model, "axis", [], schema.TensorType.INT32, constant=np.asarray(1, np.int32))
    summed, last = (add_tensor(model, name, [1, 1024], float32) for name in ("summed", "last"))
    add_operator(model, "CUMSUM", [2, axis], [summed], at=1, options=schema.CumsumOptionsT())
    add_operator(model, "FULLY_CONNECTED", [summed, weights, -1], [last], at=2, options=layer.builtinOptions)
    graph.outputs = np.asarray([last], np.int32)
    path.write_bytes(write_model(model))
    with device.open() as session:
        (result,) = session.measure([job(Artefact.of(path), "litert/xnnpack")], QUICK.but(profile=True))
    assert result.delegation is not None
    assert (result.delegation.partitions, result.delegation.left_out) == (2, ("CUMSUM",))
    layers = [operator for operator in result.operators if "Fully Connected" in operator.kind]
    assert [operator.time_us > 5 for operator in layers] == [True, True], result.operators_detail


def test_a_corrupt_model_is_refused_in_the_runtimes_own_words(device: LocalDevice, tmp_path: Path) -> None:
    jobs = []
    for suffix, backend in ((".onnx", "onnxruntime/cpu"), (".onnx", "openvino/cpu"), (".tflite", "litert/xnnpack")):
        path = tmp_path / f"corrupt{suffix}"
        path.write_bytes(b"nonsense" * 64)
        jobs.append(job(Artefact.of(path), backend))
    with device.open() as session:
        problems = session.prepare(jobs)
    for one in jobs:
        assert "refused" in str(problems[one])
    assert "Flatbuffer" in str(problems[jobs[2]])


def test_two_processes_of_one_model_agree(device: LocalDevice, onnx_model: Artefact) -> None:
    plan = MeasurePlan(processes=6, rounds=5, round_ms=10.0, warmup_ms=20.0)
    with device.open() as session:
        one, other = session.measure([job(onnx_model, "onnxruntime/cpu")] * 2, plan)
    # the fastest of each, and far wider than the usual 1 %: other programs run beside a test, and slow whole processes
    first, second = (min(sample.p5_us for sample in result.processes) for result in (one, other))
    assert abs(first - second) < 0.25 * first


def test_a_file_that_changed_is_refused(device: LocalDevice, tmp_path: Path) -> None:
    one = null_job(tmp_path)
    one.artefact.path.write_text("null:spin=1", encoding="ascii")
    with device.open() as session:
        changed, whole = session.measure([one, null_job(tmp_path, "spin=5")], QUICK)
    assert changed.outcome is Outcome.REFUSED
    assert "changed" in changed.detail
    assert whole.outcome is Outcome.OK


def test_each_process_reports_its_conditions(device: LocalDevice, tmp_path: Path) -> None:
    here = conditions()
    if here is None:
        pytest.skip("this machine reports no conditions")
    with device.open() as session:
        (result,) = session.measure([null_job(tmp_path)], QUICK)
    for sample in result.processes:
        for moment in (sample.before, sample.after):
            assert moment is not None
            assert set(moment.model_dump(exclude_none=True)) == set(here)
        assert sample.load_average is not None
        assert sample.machine_cores == os.cpu_count()


def test_more_jobs_than_live_at_once(device: LocalDevice, tmp_path: Path) -> None:
    jobs = [null_job(tmp_path, f"spin={number}") for number in range(1, 11)]
    plan = MeasurePlan(processes=1, rounds=1, round_ms=0.5, warmup_ms=0.5)
    with device.open() as session:
        results = session.measure(jobs, plan)
    assert all(result.outcome is Outcome.OK for result in results)
    assert all(len(result.sentinel.p5_us) == 1 for result in results if result.sentinel)  # its own group's
    assert len({result.sentinel for result in results}) == 2


@pytest.mark.slow  # six seconds of rounds
def test_many_slow_rounds_are_no_silence(device: LocalDevice, tmp_path: Path) -> None:
    """Each answer comes soon, and their sum takes longer than the host waits for a word."""
    plan = MeasurePlan(processes=1, rounds=12, round_ms=1.0, warmup_ms=1.0, min_calls=5, sentinel=False)
    with device.open() as session:
        session.describe()
        session._silence_s = 5.0
        (result,) = session.measure([null_job(tmp_path, "spin=100000")], plan)
    assert result.outcome is Outcome.OK


def test_periodic_load_keeps_its_rate_and_counts_late_calls(device: LocalDevice, tmp_path: Path) -> None:
    plan = MeasurePlan(
        processes=3, rounds=1, round_ms=100.0, warmup_ms=1.0, load=Load(pattern="periodic", rate_hz=100.0)
    )
    with device.open() as session:
        easy, hopeless = session.measure([null_job(tmp_path, "spin=10"), null_job(tmp_path, "spin=40000")], plan)
    assert 3 <= max(sample.calls for sample in easy.processes) <= 11  # other programs may hold it up, never hurry it
    assert hopeless.processes[0].missed >= 2


def test_a_killed_agent_leaves_no_process_behind(device: LocalDevice, tmp_path: Path) -> None:
    session = device.open()
    agent = psutil.Process(session._link.pid)  # type: ignore[attr-defined]  # only a pipe has a process
    failed: list[BaseException] = []

    def measure() -> None:
        try:
            session.measure([null_job(tmp_path, "spin=1000000")], MeasurePlan(processes=1))
        except DeviceUnreachable as error:
            failed.append(error)

    thread = threading.Thread(target=measure)
    thread.start()
    workers = wait_for(lambda: agent.children())
    agent.kill()
    thread.join(60)
    assert "ended with status -9" in str(failed[0])
    gone, alive = psutil.wait_procs(workers, timeout=60)
    assert gone
    assert not alive
    device.open().close()  # the lock is free again


def test_the_agent_ends_with_the_host(tmp_path: Path) -> None:
    import sys

    link = PipeLink([sys.executable, "-B", str(agent_path())])
    agent = psutil.Process(link.pid)
    stdin = link._process.stdin
    assert stdin is not None
    stdin.close()
    try:
        assert agent.wait(60) == 0
    finally:
        link.close()


def wait_for(found: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    """The first non-empty answer. Fails after a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if answer := found():
            return answer
        time.sleep(0.02)
    raise AssertionError("nothing came within a minute")


def test_work_is_bound_to_cores(tmp_path: Path) -> None:
    name = f"bound-{time.monotonic_ns()}"
    last = max(os.sched_getaffinity(0))
    with LocalDevice(name=name, on_cores=(last,)).open() as session:
        bound = session.describe()
        (result,) = session.measure([null_job(tmp_path)], QUICK)
    assert (bound.on_cores, bound.cores) == (str(last), 1)
    assert result.kind.value == "measured"  # these cores are what was asked about, not a smaller machine
    with LocalDevice(name=name).open() as session:
        free = session.describe()
    assert free.on_cores == ""
    assert bound.digest() != free.but(cores=1).digest()
    with pytest.raises(MissingError, match=r"can't be used as its file says: core 999: there are"):
        LocalDevice(name=name, on_cores=(999,)).open()


def test_a_device_without_a_thermometer_cannot_wait(tmp_path: Path) -> None:
    device = LocalDevice(name=f"hot-{time.monotonic_ns()}", cooling={"below_c": 45.0, "patience_s": 0.1})
    here = conditions()
    if here is None or "temperature_c" not in here:
        with pytest.raises(MissingError, match="tells no temperature"):
            device.open()
    else:
        with device.open() as session:
            (result,) = session.measure([null_job(tmp_path)], QUICK)
        assert result.outcome is Outcome.OK
