"""The fake device keeps a device's promises, and does what its script says."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Job, MeasurePlan, Outcome
from edgekd.errors import DeviceUnreachable
from edgekd.testing.contracts.device import DeviceContract
from edgekd.testing.fakes import FakeDevice, Script, TimingNoise


def job(name, backend="litert/xnnpack"):
    artefact = Artefact(path=Path(f"{name}.tflite"), format=Format.TFLITE, sha256=f"{name:0>64}", size_bytes=1000)
    return Job(artefact=artefact, backend=Backend.model_validate(backend))


class TestFakeDevice(DeviceContract):
    """The null runtime's words, played from paper."""

    @pytest.fixture
    def make_device(self):
        details = {"crash": "died of SIGSEGV", "refuse": "told to refuse"}
        ends = {"crash": Outcome.CRASHED, "hang": Outcome.HUNG, "refuse": Outcome.REFUSED}

        def behaviour(job):
            return job.artefact.path.read_text().strip().partition(":")[2].partition("=")[::2]

        def outcomes(job):
            word, value = behaviour(job)
            if word == "alloc":
                return Script(memory_model_bytes=int(value))
            return Script(outcome=ends.get(word, Outcome.OK), detail=details.get(word, ""))

        def latency(job):
            word, value = behaviour(job)
            return 1.0 + (1.02 * float(value) if word == "spin" else 0.0)

        def answer(job, inputs):
            if inputs[0].ndim != 2:
                raise ValueError("input x should be float32 (1, 1)")
            return inputs

        device = FakeDevice(latency, outcomes=outcomes, answer=answer)
        return lambda: device


def test_the_same_calls_give_the_same_measurements():
    def measured(seed):
        session = FakeDevice({"a": 100.0}, noise=TimingNoise(busy=0.3), seed=seed).open()
        return [session.measure([job("a")], MeasurePlan()) for _ in range(3)]

    assert measured(1) == measured(1)
    assert measured(1) != measured(2)
    first, second, _ = measured(1)
    assert first != second


def test_latencies_are_looked_up_from_the_most_exact_key():
    device = FakeDevice({"a": 1.0, "tflite": 2.0, "onnxruntime/cpu": 3.0})
    assert device.latency_us(job("a")) == 1.0
    assert device.latency_us(job("b")) == 2.0
    with pytest.raises(KeyError, match=r"b\.tflite"):
        FakeDevice({"a": 1.0}).latency_us(job("b"))


def test_it_goes_away_when_scripted():
    session = FakeDevice({"a": 1.0}, disconnect_after=2).open()
    for _ in range(2):
        session.measure([job("a")], MeasurePlan())
    with pytest.raises(DeviceUnreachable, match="went away"):
        session.measure([job("a")], MeasurePlan())


def test_a_crash_can_come_late():
    device = FakeDevice({"a": 1.0}, outcomes={"a": Script(outcome=Outcome.CRASHED, detail="died", after=3)})
    (measured,) = device.open().measure([job("a")], MeasurePlan())
    assert measured.outcome is Outcome.CRASHED
    assert len(measured.processes) == 3


def test_the_machine_can_slow_down_and_throttle():
    drifting = FakeDevice({"a": 100.0}, noise=TimingNoise(low=0.0, drift=1000.0))
    lows = [p.p5_us for p in drifting.open().measure([job("a")], MeasurePlan())[0].processes]
    assert lows == sorted(lows)
    assert lows[-1] > 1.2 * lows[0]
    throttled = FakeDevice({"a": 100.0}, noise=TimingNoise(low=0.0, throttle_after_s=1.0, throttle_by=0.5))
    lows = [p.p5_us for p in throttled.open().measure([job("a")], MeasurePlan())[0].processes]
    assert (lows[0], lows[-1]) == (100.0, 150.0)


def test_another_format_is_refused():
    (measured,) = FakeDevice({"a": 1.0}).open().measure([job("a", "onnxruntime/cpu")], MeasurePlan())
    assert measured.outcome is Outcome.REFUSED
    assert "tflite" in measured.detail


def test_answers_need_a_callable(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 3), np.float32))
    with pytest.raises(TypeError, match="answer"):
        FakeDevice({"a": 1.0}).open().run(job("a"), [tmp_path / "x.npy"])
    failing = FakeDevice({"a": 1.0}, outcomes={"a": Outcome.CRASHED}, answer=lambda job, inputs: inputs)
    assert failing.open().run(job("a"), [tmp_path / "x.npy"]).outcome is Outcome.CRASHED


@pytest.mark.slow
def test_a_thousand_measurements_take_seconds_at_most():
    session = FakeDevice({"a": 100.0}).open()
    begun = time.process_time()
    session.measure([job("a")] * 1000, MeasurePlan())
    assert time.process_time() - begun < 60.0  # of this process: others may run beside it
