"""A phone without a Python, over a real adbd: programs that say what the vendors' say, times of which are known."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import Job, Load, MeasurePlan, Outcome
from edgekd.devices.adb_tools import AdbToolsDevice, ToolsSession
from edgekd.errors import DeviceBusy, DeviceUnreachable, MissingError
from edgekd.measure.benches.bench import run_bench
from edgekd.measure.doctor import examine
from edgekd.search.requirements import require_runtimes
from edgekd.targets.catalogue import load_target
from edgekd.testing.adbd import LoopbackAdbd, missing

pytestmark = [pytest.mark.runtime, pytest.mark.skipif(missing() != "", reason=f"no adbd: {missing()}")]

PLAN = MeasurePlan(processes=3, rounds=3, round_ms=5.0, warmup_ms=5.0, load_deadline_s=2.0, call_deadline_s=1.0)
LITERT, ONNX = (Backend.model_validate(name) for name in ("litert/xnnpack", "onnxruntime/cpu"))

BENCHMARK_MODEL = """#!/bin/sh
echo "$@" >> /data/local/tmp/asked
for A in "$@"; do case "$A" in --graph=*) F="${A#--graph=}" ;; esac; done
case "$(head -c 64 "$F")" in
*slow*) B=2 ;; *broken*) echo "ERROR: Op builtin_code out of range: 250" >&2; exit 1 ;; *crash*) kill -SEGV $$ ;;
*hang*) sleep 60 ;; *mute*) exit 0 ;; *) B=1 ;;
esac
echo "INFO: count=1 curr=900 p5=900 median=900 p95=900"
Q="p5=${B}01 median=${B}05 p95=${B}20"
echo "INFO: count=150 first=${B}90 curr=${B}05 min=${B}00 max=${B}99 avg=${B}06.5 std=3 $Q"
echo "INFO: Inference timings in us: Init: 4300, First inference: 900, Warmup (avg): 900, Inference (avg): ${B}06.5"
"""
PERF_TEST = """#!/bin/sh
for A in "$@"; do M="$T"; T="$A"; [ "$P" = -r ] && N="$A"; P="$A"; done
grep -q mute "$M" && exit 0
grep -q broken "$M" && { echo "Load model from $M failed: Protobuf parsing failed."; exit 255; }
echo "Session creation time cost: 0.0043 s"
echo "First inference time cost: 0 ms"
echo "Total inference requests: $N"
I=0; while [ $I -lt $N ]; do echo "net,0.0003,1000,98,$I"; I=$((I+1)); done > "$T"
"""


@pytest.fixture
def device(phone_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdbToolsDevice]:
    files = {}
    for name, text in (("benchmark_model", BENCHMARK_MODEL), ("onnxruntime_perf_test", PERF_TEST)):
        files[name] = tmp_path / name
        files[name].write_text(text)
    asked = phone_root / "data/local/tmp/asked"
    asked.unlink(missing_ok=True)
    with LoopbackAdbd(phone_root) as phone:
        for name, value in phone.environment.items():
            monkeypatch.setenv(name, value)
        name = f"tools-{time.monotonic_ns()}"
        yield AdbToolsDevice(name=name, address=phone.address, folder=f"/data/local/tmp/{name} it's", **files)


def model(folder: Path, name: str) -> Artefact:
    path = folder / name
    path.write_bytes(b"\x1c\0\0\0TFL3" + name.encode() if name.endswith(".tflite") else name.encode())
    return Artefact.of(path)


def test_times_of_both(device: AdbToolsDevice, phone_root: Path, tmp_path: Path) -> None:
    net, slow, onnx = (model(tmp_path, name) for name in ("net.tflite", "slow.tflite", "net.onnx"))
    heard: list[tuple[int, int]] = []
    jobs = [
        Job(artefact=net, backend=LITERT),
        Job(artefact=slow, backend=LITERT, threads=2),
        Job(artefact=onnx, backend=ONNX),
    ]
    with_one = device.open()
    try:
        found = with_one.describe()
        results = with_one.measure(jobs, PLAN, lambda _, done, total: heard.append((done, total)))
        with pytest.raises(DeviceBusy):
            device.open()
        assert device.describe() == found
    finally:
        with_one.close()
    assert [(result.outcome, result.detail) for result in results] == [(Outcome.OK, "")] * 3
    assert [[p.p50_us for p in result.processes] for result in results] == [
        [105.0] * 3,
        [205.0] * 3,
        [pytest.approx(300.0)] * 3,
    ]
    assert results[0].processes[0].memory_model_bytes is None
    assert results[1].plan.threads == 2
    assert results[0].state == "times only, by benchmark_model"
    assert (results[0].resolution_us, results[2].resolution_us) == (1.0, 0.0)
    assert [p.calls for p in results[2].processes] == [50] * 3  # 15 ms of 300 us
    assert results[2].processes[0].first_us is None
    assert heard[-1] == (9, 9)
    assert (found.times_only, found.cores > 0, found.memory_bytes > 1 << 30) == (True, True, True)
    assert found.runtimes["litert"].startswith("benchmark_model ")
    assert found.os.startswith("Android 15")
    asked = (phone_root / "data/local/tmp/asked").read_text().splitlines()
    assert len(asked) == 6
    assert all("--use_xnnpack=true --warmup_runs=1" in line and "--num_runs=10" in line for line in asked)
    assert sum("--num_threads=2 " in line for line in asked) == 3


def test_each_plan_has_calls_of_its_own(device: AdbToolsDevice, tmp_path: Path) -> None:
    """A model is called for a millisecond before it is measured, and that is no measure for what follows."""
    job = Job(artefact=model(tmp_path, "net.onnx"), backend=ONNX)
    session = device.open()
    try:
        assert session.prepare([job]) == {job: None}
        results = [session.measure([job], PLAN.but(processes=1, round_ms=round_ms)) for round_ms in (5.0, 20.0)]
    finally:
        session.close()
    assert [result.processes[0].calls for (result,) in results] == [50, 200]  # of 300 us


@pytest.mark.parametrize(
    ("name", "outcome", "words"),
    [
        ("broken.tflite", Outcome.REFUSED, "ended with status 1: ERROR: Op builtin_code out of range: 250"),
        ("crash.tflite", Outcome.CRASHED, "killed by signal 11"),
        ("hang.tflite", Outcome.HUNG, "no end within 4.015 s"),
        ("mute.tflite", Outcome.REFUSED, "did not tell its times"),
        ("mute.onnx", Outcome.REFUSED, "onnxruntime_perf_test did not tell its times"),
        ("broken.onnx", Outcome.REFUSED, "status 255: Load model from"),
    ],
)
def test_every_end_is_reported(device: AdbToolsDevice, tmp_path: Path, name: str, outcome: Outcome, words: str) -> None:
    backend = ONNX if name.endswith(".onnx") else LITERT
    jobs = [Job(artefact=model(tmp_path, name), backend=backend)]
    jobs.append(Job(artefact=model(tmp_path, "net.tflite"), backend=LITERT))
    session = device.open()
    try:
        failed, good = session.measure(jobs, PLAN)
    finally:
        session.close()
    assert failed.outcome is outcome
    assert words in failed.detail
    assert (good.outcome, len(good.processes)) == (Outcome.OK, 3)


def test_what_these_programs_cannot_do(device: AdbToolsDevice, tmp_path: Path) -> None:
    job = Job(artefact=model(tmp_path, "net.tflite"), backend=LITERT)
    session: ToolsSession = device.open()
    try:
        for plan in (PLAN.but(memory_limit_bytes=1 << 20), PLAN.but(load=Load(busy=1))):
            with pytest.raises(MissingError, match="vendors' programs"):
                session.measure([job], plan)
        with pytest.raises(MissingError, match="not answers"):
            session.run(job, [])
        shaped, elsewhere = session.measure(
            [job.but(shapes=(("x", (1, 3)),)), job.but(backend=Backend.model_validate("openvino/cpu"))], PLAN
        )
        assert (shaped.outcome, elsewhere.outcome) == (Outcome.REFUSED, Outcome.REFUSED)
        assert session.prepare([job]) == {job: None}
        with pytest.raises(MissingError, match="tells times only"):
            require_runtimes(load_target("this-computer"), session.describe())
    finally:
        session.close()
        session.close()
    with pytest.raises(DeviceUnreachable, match="closed"):
        session.measure([job], PLAN)


def test_a_bench_says_that_it_is_times_only(device: AdbToolsDevice, tmp_path: Path) -> None:
    paths = [model(tmp_path, name).path for name in ("net.tflite", "slow.tflite")]
    report = run_bench(paths, device, [LITERT], 1, PLAN.but(processes=5))
    assert [row.order for row in report.rows] == [1, 2]
    text = " ".join(" ".join(report.lines()).split())
    assert "times only, by the vendors' programs" in text
    assert "latency.p99" not in {figure.metric for figure in report.rows[0].figures}
    checks = {check.name: check for check in examine(device, lambda: []).checks}
    assert checks["device python"].found == "none: times only"


def test_what_was_not_used_for_a_week_goes(device: AdbToolsDevice, phone_root: Path, tmp_path: Path) -> None:
    job = Job(artefact=model(tmp_path, "net.tflite"), backend=LITERT)
    folder = phone_root / device.folder.lstrip("/")
    old, week_s = folder / "blobs/old/data.tflite", 7 * 24 * 3600
    old.parent.mkdir(parents=True)
    (folder / "tools").mkdir()
    for place in (old, folder / "tools/old", folder / "tools/new"):
        place.write_bytes(b"x")
        os.utime(place, (time.time() - (week_s - 3600 if place.name == "new" else week_s + 3600),) * 2)
    session = device.open()
    try:
        assert not old.exists()
        assert {path.name for path in (folder / "tools").iterdir()} > {"new"}
        assert not (folder / "tools/old").exists()
        assert session.prepare([job]) == {job: None}
    finally:
        session.close()


def test_its_options() -> None:
    with pytest.raises(ValueError, match="expected `benchmark_model`"):
        AdbToolsDevice(name="phone", serial="1")
    with pytest.raises(ValueError, match="needs a Python on the phone"):
        AdbToolsDevice(name="phone", serial="1", benchmark_model=Path(__file__), python="/bin/python3")
