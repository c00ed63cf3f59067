"""Thousands of damaged answers and outputs of an agent: each is an error of ours or a good answer, in no time."""

from __future__ import annotations

import io
import json
import pickle
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.agent.messages import PROTOCOL
from edgekd.devices._protocol import MeasurePlan, Outcome
from edgekd.devices.diagnostic import null_job
from edgekd.devices.session import AgentSession
from edgekd.errors import ConnectionLost, EdgeKDError
from edgekd.export._protocol import ExportOptions
from edgekd.export.answers import read_outputs
from edgekd.measure.compare import p5_us
from edgekd.measure.figures import figures_of
from edgekd.records import digest_bytes
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

ANSWERS = 2_000
PLAN = MeasurePlan(processes=2, rounds=2, energy=True)
SAMPLES, CLASSES = 3, 10
TASK = TaskSpec(name="t", input=InputSpec(shape=(1, 1, 1)), head=HeadSpec(classes=CLASSES), data="0" * 64)


def npy(array: Any) -> bytes:
    written = io.BytesIO()
    np.save(written, array, allow_pickle=True)
    return written.getvalue()


OUTPUT = npy(np.arange(SAMPLES * CLASSES, dtype=np.float32).reshape(SAMPLES, CLASSES))
SAMPLE = {
    "p5_us": 2.0, "min_us": 1.0, "p50_us": 3.0, "p95_us": 4.0, "p99_us": 5.0, "mean_us": 3.0, "round_p5_us": [2.0],
    "calls": 5, "first_us": 9.0, "load_ms": 1.0, "runtime_us": None, "missed": 0, "memory_model_bytes": 1,
    "memory_process_bytes": 2, "started_at_s": 0.0, "before": {"temperature_c": 40.0, "clock_mhz": 1800.0},
}  # fmt: skip
DONE: dict[str, Any] = {
    "hello": {"protocol": PROTOCOL, "python": "3.11", "pid": 1, "unenforced": "", "held_by": ""},
    "describe": {
        "cpu": "test", "architecture": "x86_64", "cores": 1, "extensions": ["avx2"], "memory_bytes": 1,
        "governor": None, "os": "test", "python": "3.11", "runtimes": {"litert": "2"},
        "providers": {"litert": ["xnnpack"]}, "limits": "",
    },
    "load": {"outcome": "ok", "detail": ""},
    "measure": {"sentinel": [[60.0, 61.0], [60.5, 61.5]]},
    "run": {"outcome": "ok", "detail": "", "outputs": [{"path": "/d/1", "sha256": digest_bytes(OUTPUT)}]},
}  # fmt: skip
ENERGY = {"joules": 1e-3, "busy_w": 5.0, "idle_w": 2.0, "calls": 10, "window_s": 2.0, "readings": 50}
JOB = {
    "job": 0, "outcome": "ok", "detail": "", "processes": [SAMPLE, SAMPLE], "beside": [0, 1],
    "placement": {"total": 2, "delegated": 1, "partitions": 1, "left_out": ["CONV_2D"]},
    "operators": [{"name": "a", "kind": "CONV_2D", "time_us": 1.0}], "operators_detail": "",
    "energy": [ENERGY, ENERGY], "energy_detail": "",
}  # fmt: skip
STRANGE = [
    None, True, -1, 0, 10**30, 1e308, -1e308, "", "x" * 10_000, "\x1b[2J", "\ud800", "ok", [], {}, [[]], [None] * 50,
    {"": None}, "../../etc/passwd", float("inf"), float("nan"),
]  # fmt: skip


class DamagedLink:
    """Answers as an agent does, and damages the lines of one request."""

    def __init__(self, chance: random.Random, victim: str) -> None:
        self.chance, self.victim = chance, victim
        self.output = damaged_output(chance) if victim == "output" else OUTPUT
        self.lines: list[bytes] = []

    def send(self, line: bytes) -> None:
        asked = json.loads(line)
        op, number = asked["op"], asked["id"]
        before = [{"step": "process 1", "id": number}, {**JOB, "id": number}] if op == "measure" else []
        done = DONE[op]
        if op == "run":
            done = {**done, "outputs": [{"path": "/d/1", "sha256": digest_bytes(self.output)}]}
        lines = [json.dumps(message).encode() for message in (*before, {"done": done, "id": number})]
        self.lines = damaged(lines, self.chance) if op == self.victim else lines

    def receive(self, deadline_s: float, most_bytes: int) -> bytes:
        if not self.lines:
            raise ConnectionLost(f"the agent did not answer within {deadline_s:g} s")
        return self.lines.pop(0)[:most_bytes]

    def state(self) -> str:
        return ""

    def put(self, files: Sequence[Path]) -> str:
        return "/d/model"

    def folder(self) -> str:
        return "/d"

    def get(self, path: str, place: Path) -> None:
        place.write_bytes(self.output)

    def close(self) -> None:
        pass


def damaged(lines: list[bytes], chance: random.Random) -> list[bytes]:
    """One line cut, flipped, nested, swapped, said twice or left out, or one of its values replaced."""
    at = chance.randrange(len(lines))
    line = lines[at]
    how = chance.randrange(8)
    if how == 0:
        line = line[: chance.randrange(len(line))]
    elif how == 1:
        flipped = bytearray(line)
        for _ in range(chance.randint(1, 8)):
            flipped[chance.randrange(len(flipped))] = chance.randrange(256)
        line = bytes(flipped)
    elif how == 2:
        line = chance.choice(
            [b"[" * 200_000, b'{"a":' * 200_000, b"9" * 20_000, b"", b"null", b'"\\ud800"', b"\x00" * 9]
        )
    elif how == 3:
        return [*lines[:at], line, *lines[at:]]
    elif how == 4:
        return lines[:at] + lines[at + 1 :]
    else:
        message = json.loads(line)
        replace(message, chance)
        line = json.dumps(message).encode()
    return [*lines[:at], line, *lines[at + 1 :]]


def replace(value: Any, chance: random.Random) -> None:
    """Put something strange somewhere inside."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(value[key], dict | list) and value[key] and chance.random() < 0.8:
            value = value[key]
            continue
        if isinstance(value, dict) and chance.random() < 0.2:
            value.pop(key)
        else:
            value[key] = chance.choice(STRANGE)
        return


def damaged_output(chance: random.Random) -> bytes:
    """A file whose digest is right and which is no answer: cut, flipped, of other numbers, of none, or a pickle."""
    header = OUTPUT[: OUTPUT.index(b"\n") + 1]
    how = chance.randrange(5)
    if how == 0:
        return OUTPUT[: chance.randrange(len(OUTPUT))]
    if how == 1:
        flipped = bytearray(OUTPUT)
        for _ in range(chance.randint(1, 4)):
            flipped[chance.randrange(len(header))] = chance.randrange(256)
        return bytes(flipped)
    if how == 2:
        shapes = [b"(-1, 10)", b"(3, 999999999999)", b"(3, 9)", b"()", b"((", b"(3, 10, 4)", b"(2,10)", b"(3.0, 10)"]
        shape = chance.choice(shapes)
        return header[:-1].rstrip().replace(b"(3, 10)", shape).ljust(len(header) - 1) + b"\n" + OUTPUT[len(header) :]
    if how == 3:
        zipped = io.BytesIO()
        np.savez(zipped, a=np.zeros(3))
        without_end = b"\x93NUMPY\x02\x00\xff\xff\xff\xff"
        return chance.choice([pickle.dumps([1]), zipped.getvalue(), b"", without_end[:6], without_end])
    strange = [None] * SAMPLES, [b"x"] * SAMPLES, [1] * SAMPLES, 1.0, [[1.0] * CLASSES] * (SAMPLES + 1)
    return npy(np.array(chance.choice(strange)))


@pytest.mark.parametrize("victim", sorted([*DONE, "output"]))
@pytest.mark.slow
def test_damaged_answers(victim: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((SAMPLES, 1), np.float32))
    job, refused, others = null_job(tmp_path), 0, 0
    begin = time.monotonic()
    for seed in range(ANSWERS // len(DONE)):
        link = DamagedLink(random.Random(f"{victim} {seed}"), victim)
        try:
            with AgentSession("test", link, lambda: None) as session:
                session.describe().digest()
                session.prepare([job])
                for result in session.measure([job], PLAN):
                    result.model_dump_json()
                    assert figures_of(result, size_bytes=1)
                    assert p5_us(result) > 0
                result = session.run(job, [tmp_path / "x.npy"])
                if result.outcome is Outcome.OK:
                    (answers,) = read_outputs(result, SAMPLES, TASK, ExportOptions())
                    assert answers.shape == (SAMPLES, CLASSES)
        except EdgeKDError as error:
            refused += error.exit_code == 4
            others += error.exit_code != 4
    assert others == 0
    assert refused > 0.3 * ANSWERS / len(DONE)  # else the damage is too weak
    assert time.monotonic() - begin < 120
