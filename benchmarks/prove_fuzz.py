"""Damaged model files get a clear answer: thousands of them, read, loaded and timed, each a little differently broken.

An int8 student of edgekd's own in each format is injured by seed: bits, bytes and blocks changed, cut, doubled or
moved, numbers made extreme, and in OpenVINO's XML whole words. Each is described, read for its facts, and loaded by
every backend that reads it, in a process of its own with a deadline; of those that load, some are timed too. Whatever
becomes of them must be a figure or a problem in words; nothing may hang, and intact models must still run afterwards.

Run: python benchmarks/prove_fuzz.py [--models 2000] [--seed 0] (about half a second a model; exit code 1: it broke)
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cells import versions

from edgekd.agent.fingerprint import fingerprint
from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import DeviceSession, Job, MeasurePlan, Outcome
from edgekd.devices.local import LocalDevice
from edgekd.errors import EdgeKDError
from edgekd.export.metadata import read_facts
from edgekd.ir.backends import asked_of_agent
from edgekd.ir.numerics import Precision
from edgekd.measure.figures import figures_of
from edgekd.measure.models import find_models

RESULT = Path(__file__).parent / "results" / "fuzz.json"
BACKENDS = {
    ".onnx": ("onnxruntime/cpu", "openvino/cpu"),
    ".tflite": ("litert/xnnpack", "litert/builtin", "openvino/cpu"),
    ".xml": ("openvino/cpu",),
}
NATIVE = {".onnx": "onnxruntime/cpu", ".tflite": "litert/xnnpack", ".xml": "openvino/cpu"}
EXTREMES = (b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\x00\x00\x00\x80", b"\x00\x00\x00\x00", b"\x80\x80\x80\x80\x08")
WORDS = ("-1", "0", "9" * 12, "1e999", "nan", "dynamic", "Parameter", "Result", "Const", "i4", "f64", "", "\x00", "&x;")
MEMORY_BYTES = 4 * 1024**3  # what a process may take, so that a model with a huge tensor ends alone
SLOWEST_S = 100.0  # loading and first call have a minute and half a minute
TIMED = MeasurePlan(processes=1, rounds=2, round_ms=2.0, min_calls=2, warmup_ms=2.0, profile=True)
BATCH = 25


def intact(folder: Path) -> list[Path]:
    """The same small int8 student in every format."""
    import numpy as np

    from edgekd.compress.quantization.calibrate import calibrate
    from edgekd.export._protocol import ExportOptions
    from edgekd.export.converter import Converter
    from edgekd.students.resnet import ResNet
    from edgekd.students.student import new_student, save_student
    from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

    spec = TaskSpec(
        name="squares", input=InputSpec(shape=(3, 8, 8), mean=(128.0,), std=(64.0,)), head=HeadSpec(classes=4), data="0"
    )
    family = ResNet.model_validate({"stages": 1, "space": {"width": [8, 8], "depth": [1, 1]}})
    samples = np.random.default_rng(0).integers(0, 256, (16, 3, 8, 8), dtype=np.uint8)
    student = calibrate(new_student(family, family.space(spec).at(0), spec, 0), samples, Precision.INT8, "minmax")
    save_student(student, folder / "student")
    made = []
    formats = {".onnx": Format.ONNX, ".tflite": Format.TFLITE, ".xml": Format.OPENVINO}
    with Converter(folder / "scratch") as converter:
        for suffix, file_format in formats.items():
            backend = Backend.model_validate(NATIVE[suffix])
            path = folder / f"intact{suffix}"
            facts = {"target": "nothing"}
            result = converter.convert(folder / "student", file_format, ExportOptions(), backend, None, path, facts)
            if result.artefact is None:
                raise EdgeKDError(f"the intact {suffix} can't be made: {result.detail}")
            made.append(path)
    return made


def injured(raw: bytes, text: bool, rng: random.Random) -> bytes:
    """One to three injuries, most of them small enough to get past the parser; never the file as it was."""
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at, length = rng.randrange(len(data) + 1), rng.choice((1, 4, 16, 64))
        spots = list(re.finditer(rb'"[^"]{0,40}"', bytes(data))) if text and rng.random() < 0.7 else []
        kind = rng.choice(("bit", "byte", "extreme", "cut out", "double", "move", "blank", "cut off"))
        if spots:
            spot = rng.choice(spots)
            data[spot.start() + 1 : spot.end() - 1] = rng.choice(WORDS).encode()
        elif at == len(data):
            data.append(rng.randrange(256))
        elif kind == "bit" or (rng.random() < 0.5 and kind != "extreme"):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "byte":
            data[at] = rng.randrange(256)
        elif kind == "extreme":
            one = rng.choice(EXTREMES)
            at -= at % len(one) if rng.random() < 0.5 else 0
            data[at : at + len(one)] = one
        elif kind == "cut out":
            del data[at : at + length]
        elif kind == "double":
            data[at:at] = data[at : at + length]
        elif kind == "move":
            other = rng.randrange(len(data))
            data[at : at + length] = data[other : other + length]
        elif kind == "blank":
            data[at : at + length] = bytes(length)
        else:
            del data[at:]
    return bytes(data) if bytes(data) != raw else raw[:-1]


def make(seeds: Sequence[Path], folder: Path, number: int, rng: random.Random) -> Path:
    """The next injured file; of an OpenVINO model the .xml or, one time in four, its .bin."""
    seed = seeds[number % len(seeds)]
    path = folder / f"{number:05d}{seed.suffix}"
    weights = seed.with_suffix(".bin").read_bytes() if seed.suffix == ".xml" else b""
    raw = seed.read_bytes()
    if weights and rng.random() < 0.25:
        weights = injured(weights, False, rng)
    else:
        raw = injured(raw, seed.suffix == ".xml", rng)
    path.write_bytes(raw)
    if seed.suffix == ".xml":
        path.with_suffix(".bin").write_bytes(weights)
    return path


class Tally:
    """What became of the models, and what broke."""

    def __init__(self) -> None:
        self.ends: Counter[str] = Counter()
        self.problems: list[str] = []
        self.slowest_s = 0.0

    def read(self, path: Path) -> None:
        """Describe it as a bench does, and read its facts: a value, or an error of ours in words."""
        for what, act in (("find", lambda: find_models([path])), ("facts", lambda: read_facts(path))):
            begun = time.monotonic()
            try:
                act()
                self.ends[f"{what}: ok"] += 1
            except EdgeKDError as error:
                self.ends[f"{what}: refused"] += 1
                if not error.message.strip() or not all(c.isprintable() or c == "\n" for c in str(error)):
                    self.problems.append(f"{path.name}: {what}: {str(error)!r} is no clear answer")
            except Exception as error:  # noqa: BLE001  # a traceback is the very thing looked for
                self.problems.append(f"{path.name}: {what}: {type(error).__name__}: {error}")
            if time.monotonic() - begun > 5:
                self.problems.append(f"{path.name}: {what} took {time.monotonic() - begun:.0f} s")

    def load(self, session: DeviceSession, job: Job) -> bool:
        """Whether it loads; a problem must say why not."""
        begun = time.monotonic()
        problem = session.prepare([job])[job]
        took_s = time.monotonic() - begun
        self.slowest_s = max(self.slowest_s, took_s)
        if took_s > SLOWEST_S:
            self.problems.append(f"{job.artefact.path.name} on {job.backend}: loading took {took_s:.0f} s")
        if problem is None:
            self.ends[f"load {job.backend}: ok"] += 1
            return True
        outcome = problem.message.split(": ")[1]
        self.ends[f"load {job.backend}: {outcome}"] += 1
        if len(problem.message.split(": ", 2)[2].strip()) < 3 or "Traceback" in str(problem):
            self.problems.append(f"{job.artefact.path.name} on {job.backend}: {str(problem)!r} is no clear answer")
        return False

    def time(self, session: DeviceSession, jobs: Sequence[Job]) -> None:
        """Time a batch of survivors and dead together."""
        for job, measured in zip(jobs, session.measure(jobs, TIMED), strict=True):
            self.ends[f"time {job.backend}: {measured.outcome.value}"] += 1
            figures = figures_of(measured, size_bytes=job.artefact.size_bytes) if measured.processes else ()
            if (measured.outcome is Outcome.OK) != bool(figures) or (not figures and not measured.detail.strip()):
                self.problems.append(f"{job.artefact.path.name} on {job.backend}: {measured.outcome}, no reason")


def prove(models: int, seed: int, work: Path) -> Tally:
    """Everything. What breaks is kept in the tally; a session that breaks is the last."""
    tally, rng = Tally(), random.Random(seed)
    seeds = intact(work)
    folder = work / "injured"
    folder.mkdir()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    with LocalDevice(name="this-computer-fuzz").open() as session:
        for first in range(0, models, BATCH):
            batch = []
            for number in range(first, min(first + BATCH, models)):
                path = make(seeds, folder, number, rng)
                tally.read(path)
                backend = Backend.model_validate(rng.choice(BACKENDS[path.suffix]))
                batch.append(Job(artefact=Artefact.of(path), backend=backend))
            loads = [tally.load(session, job) for job in batch]
            alive = [job for job, loaded in zip(batch, loads, strict=True) if loaded]
            dead = [job for job, loaded in zip(batch, loads, strict=True) if not loaded]
            tally.time(session, [*alive[:3], *dead[:1]])
            for path in folder.iterdir():
                path.unlink()
            print(f"{first + len(batch):>5} of {models}  {len(tally.problems)} problems", file=sys.stderr, flush=True)
        sound = [Job(artefact=Artefact.of(path), backend=Backend.model_validate(NATIVE[path.suffix])) for path in seeds]
        for job, problem in session.prepare(sound).items():
            if problem is not None:
                tally.problems.append(f"the intact {job.artefact.path.name} does not load any more: {problem}")
    return tally


def main() -> int:
    """Exit code 1 where anything broke."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--models", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="edgekd-fuzz-") as name:
        tally = prove(asked.models, asked.seed, Path(name))
    result: dict[str, Any] = {
        "schema": "edgekd.benchmark.fuzz/1",
        "machine": fingerprint(asked_of_agent()),
        "versions": versions(),
        "models": asked.models,
        "seed": asked.seed,
        "ends": dict(sorted(tally.ends.items())),
        "slowest_load_s": round(tally.slowest_s, 2),
        "problems": tally.problems,
        "seconds": round(time.monotonic() - begun, 1),
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(result, indent=1) + "\n")
    for end, count in result["ends"].items():
        print(f"{count:>6}  {end}")
    for problem in tally.problems:
        print(problem)
    print(f"{asked.models} models, {len(tally.problems)} problems, slowest load {tally.slowest_s:.1f} s, "
          f"{result['seconds']:.0f} s in all")  # fmt: skip
    return 1 if tally.problems else 0


if __name__ == "__main__":
    sys.exit(main())
