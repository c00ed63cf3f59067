"""A session against agents that answer badly: each is an error in time, none becomes a figure."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.agent.messages import PROTOCOL
from edgekd.devices._protocol import Conditions, MeasurePlan, ProcessSample
from edgekd.devices.diagnostic import null_job
from edgekd.devices.session import AgentSession
from edgekd.errors import ConnectionLost, DeviceUnreachable
from edgekd.records import digest_bytes
from edgekd.testing.fakes.clock import FakeClock

HELLO = {"protocol": PROTOCOL, "python": "3.11", "pid": 1}
FINGERPRINT = {
    "cpu": "test", "architecture": "x86_64", "cores": 1, "extensions": [], "memory_bytes": 1, "governor": None,
    "os": "test", "python": "3.11", "runtimes": {}, "providers": {},
}  # fmt: skip
SAMPLE = {
    "p5_us": 2.0, "min_us": 1.0, "p50_us": 3.0, "p95_us": 4.0, "p99_us": 5.0, "mean_us": 3.0, "round_p5_us": [2.0],
    "calls": 5, "first_us": 9.0, "load_ms": 1.0, "runtime_us": None, "missed": 0, "memory_model_bytes": 1,
    "memory_process_bytes": 2, "started_at_s": 0.0,
}  # fmt: skip
ENERGY = {"joules": 1e-3, "busy_w": 5.0, "idle_w": 2.0, "calls": 10, "window_s": 2.0, "readings": 50}
TWO = {"processes": [SAMPLE, SAMPLE], "beside": [0, 1]}
PLAN = MeasurePlan(processes=1, rounds=1)

Answer = Callable[[dict[str, Any]], Sequence[bytes]]


@pytest.mark.parametrize(("field", "value"), [("cores", -5), ("cores", 0), ("memory_bytes", -1)])
def test_an_impossible_machine_is_not_believed(field: str, value: int) -> None:
    link = ScriptedLink(describe=done({**FINGERPRINT, field: value}))
    session = AgentSession("board", link, lambda: None)
    with pytest.raises(DeviceUnreachable, match=f"makes no sense: {field}"):
        session.describe()


class ScriptedLink:
    """Answers each request with the lines a script gives."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = {"hello": done(HELLO), "describe": done(FINGERPRINT), **answers}
        self.lines: list[bytes] = []
        self.asked: list[dict[str, Any]] = []
        self.closed = 0

    def send(self, line: bytes) -> None:
        message = json.loads(line)
        self.asked.append(message)
        self.lines.extend(self.answers[message["op"]](message))

    def receive(self, deadline_s: float, most_bytes: int) -> bytes:
        if not self.lines:
            raise DeviceUnreachable(f"no answer within {deadline_s:g} s")
        return self.lines.pop(0)

    def state(self) -> str:
        return ""

    def put(self, files: Sequence[Path]) -> str:
        return f"/device/{files[0].name}"

    def folder(self) -> str:
        return "/device/folder"

    def get(self, path: str, place: Path) -> None:
        place.write_bytes(b"other bytes")

    def close(self) -> None:
        self.closed += 1


def done(value: Any) -> Answer:
    return lambda message: [json.dumps({"id": message["id"], "done": value}).encode()]


def measured(sample: dict[str, Any], sentinel: Any = ((60.0,),), job: int = 0, **more: Any) -> Answer:
    def answer(message: dict[str, Any]) -> Sequence[bytes]:
        fields = {"id": message["id"], "job": job, "outcome": "ok", "detail": "", "processes": [sample]}
        fields |= {"operators": [], "beside": [0], **more}
        end = {"id": message["id"], "done": {"sentinel": sentinel}}
        return [json.dumps(fields).encode(), json.dumps(end).encode()]

    return answer


def test_a_good_answer_becomes_a_measurement(tmp_path: Path) -> None:
    link = ScriptedLink(measure=measured(SAMPLE, sentinel=[[60.0, 61.0, 90.0], [66.0, 67.0, 66.5]], **TWO))
    (result,) = AgentSession("test", link, lambda: None).measure([null_job(tmp_path)], PLAN.but(processes=2, rounds=3))
    assert result.processes[0].p5_us == 2.0
    assert result.sentinel is not None
    assert result.sentinel.p5_us == (60.0, 61.0, 90.0, 66.0, 67.0, 66.5)
    assert result.sentinel.drift == pytest.approx((66.5 - 61.0) / 63.75)
    assert link.asked[-1]["plan"]["rate_hz"] == 0.0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _: [b"Segmentation fault"], "makes no sense"),
        (lambda _: [b"[1, 2]"], "makes no sense"),
        (lambda _: [b"\xff\xfe"], "makes no sense"),
        (lambda _: [], "no answer within 3 s"),
        (lambda _: [b'{"id": 77, "done": {}}'], "answers request 77"),
        (lambda message: [json.dumps({"id": message["id"], "error": "no room"}).encode()], "no room"),
        (measured({**SAMPLE, "p5_us": float("nan")}), "NaN is no number"),
        (measured({**SAMPLE, "p5_us": "fast"}), r"processes\.0\.p5_us"),
        (measured({**SAMPLE, "volts": 5}), "volts"),
        (measured(SAMPLE, job=4), "answered number 4"),
        (measured(SAMPLE, sentinel="steady"), "sentinel"),
        (measured(SAMPLE, sentinel=[[]]), "rounds of the sentinel other than 1"),
        (measured(SAMPLE, sentinel=[[0.0]]), "sentinel"),
        (measured(SAMPLE, sentinel=[[60.0, 61.0]]), "rounds of the sentinel"),
        (measured({**SAMPLE, "mean_us": 0.0}), "mean_us"),
        (measured({**SAMPLE, "p5_us": -1.0}), "p5_us"),
        (measured({**SAMPLE, "calls": 0}), "calls"),
        (measured(SAMPLE, processes=[]), "0 processes of 1"),
        (measured(SAMPLE, beside=[]), "0 beside the sentinel"),
        (measured(SAMPLE, energy=[ENERGY]), "1 with energy"),
        (measured(SAMPLE, energy=[{**ENERGY, "calls": 0}]), "energy"),
    ],
)
def test_a_bad_answer_is_an_error_and_ends_the_session(answer: Answer, said: str, tmp_path: Path) -> None:
    released: list[bool] = []
    link = ScriptedLink(measure=answer)
    session = AgentSession("test", link, lambda: released.append(True), silence_s=3.0)
    with pytest.raises(DeviceUnreachable, match=said):
        session.measure([null_job(tmp_path)], PLAN)
    assert link.closed == 1
    assert released == [True]
    with pytest.raises(DeviceUnreachable, match="closed"):
        session.prepare([null_job(tmp_path)])


def test_conditions_and_reasons_reach_the_measurement(tmp_path: Path) -> None:
    before, after = {"temperature_c": 41.5, "clock_mhz": 2400.0}, {"temperature_c": None, "clock_mhz": 1800.0}
    answer = measured({**SAMPLE, "before": before, "after": after}, operators_detail="refused: no profiler")
    (result,) = AgentSession("test", ScriptedLink(measure=answer), lambda: None).measure([null_job(tmp_path)], PLAN)
    assert result.processes[0].before == Conditions(temperature_c=41.5, clock_mhz=2400.0)
    assert result.processes[0].after == Conditions(clock_mhz=1800.0)
    assert result.operators_detail == "refused: no profiler"


def test_why_it_did_not_cool_down_stands_beside_what_the_phone_said(tmp_path: Path) -> None:
    link = ScriptedLink(measure=measured(SAMPLE, state="not cool: 61 C after 300 s"))
    (result,) = AgentSession("test", link, lambda: None).measure([null_job(tmp_path)], PLAN)
    assert result.state == "not cool: 61 C after 300 s"
    link.state = lambda: "screen on"  # type: ignore[method-assign]
    (result,) = AgentSession("test", link, lambda: None).measure([null_job(tmp_path)], PLAN)
    assert result.state == "screen on; not cool: 61 C after 300 s"


def test_a_sample_written_earlier_is_read() -> None:
    earlier = ProcessSample.model_validate({**SAMPLE, "memory_arena_bytes": None})
    assert earlier == ProcessSample.model_validate(SAMPLE)
    assert (earlier.before, earlier.after, earlier.runtime_p50_us) == (None, None, None)


def test_another_protocol_is_refused_at_once() -> None:
    released: list[bool] = []
    with pytest.raises(DeviceUnreachable, match=f"speaks protocol 99, this edgekd speaks {PROTOCOL}"):
        AgentSession("test", ScriptedLink(hello=done({**HELLO, "protocol": 99})), lambda: released.append(True))
    assert released == [True]


def test_a_damaged_output_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(b"")
    answer = {"outcome": "ok", "detail": "", "outputs": [{"path": "/device/y.npy", "sha256": "0" * 64}]}
    session = AgentSession("test", ScriptedLink(run=done(answer)), lambda: None)
    with pytest.raises(DeviceUnreachable, match="damaged"):
        session.run(null_job(tmp_path), [tmp_path / "x.npy"])
    session.close()


class EndlessLink(ScriptedLink):
    """Greets, and then says every two seconds that it is alive, and that a step is done, for ever."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(**dict.fromkeys(("load", "measure", "run"), lambda _: []))
        self.clock = clock

    def receive(self, deadline_s: float, most_bytes: int) -> bytes:
        if self.asked[-1]["op"] in ("hello", "describe"):
            return super().receive(deadline_s, most_bytes)
        self.clock.advance(2.0)
        said = {"alive": True} if self.clock() % 4 else {"step": "process 1"}
        return json.dumps({"id": self.asked[-1]["id"], **said}).encode()


@pytest.mark.parametrize("op", ["load", "measure", "run"])
def test_an_agent_that_only_says_it_lives_is_left(op: str, tmp_path: Path) -> None:
    clock, job = FakeClock(), null_job(tmp_path)
    np.save(tmp_path / "x.npy", np.zeros((3, 1), np.float32))
    session = AgentSession("test", EndlessLink(clock), lambda: None, clock=clock)
    asked = {
        "load": lambda: session.prepare([job]),
        "measure": lambda: session.measure([job], PLAN),
        "run": lambda: session.run(job, [tmp_path / "x.npy"]),
    }
    with pytest.raises(DeviceUnreachable, match=f"says that it is alive and does not answer `{op}`") as caught:
        asked[op]()
    assert not isinstance(caught.value, ConnectionLost)  # it would be asked again
    assert not session.is_open
    assert 60.0 < clock() < 3600.0


def npy(array: Any) -> bytes:
    written = io.BytesIO()
    np.save(written, array, allow_pickle=True)
    return written.getvalue()


class OutputLink(ScriptedLink):
    """Answers samples with a file whose digest is right."""

    def __init__(self, output: bytes) -> None:
        outputs = [{"path": "/device/y.npy", "sha256": digest_bytes(output)}]
        super().__init__(run=done({"outcome": "ok", "detail": "", "outputs": outputs}))
        self.output = output

    def get(self, path: str, place: Path) -> None:
        place.write_bytes(self.output)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (b"", "no .npy file"),
        (b"Segmentation fault", "no .npy file"),
        (npy(np.zeros((3, 4), np.float32))[:-1], "no .npy file"),
        (npy(np.array([None, None, None])), "no .npy file"),
        (npy(np.array([b"a", b"b", b"c"])), "no numbers"),
        (npy(np.zeros((2, 4), np.float32)), "3 samples were given"),
        (npy(np.float32(1)), "3 samples were given"),
    ],
)
def test_an_output_that_is_no_answer_is_an_error(output: bytes, said: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 1), np.float32))
    with (
        AgentSession("test", OutputLink(output), lambda: None) as session,
        pytest.raises(DeviceUnreachable, match=said),
    ):
        session.run(null_job(tmp_path), [tmp_path / "x.npy"])


def test_a_good_output_comes_as_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 1), np.float32))
    answers = np.arange(6, dtype=np.int8).reshape(3, 2)
    with AgentSession("test", OutputLink(npy(answers)), lambda: None) as session:
        result = session.run(null_job(tmp_path), [tmp_path / "x.npy"])
        np.testing.assert_array_equal(np.load(result.outputs[0]), answers)
