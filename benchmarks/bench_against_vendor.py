"""Our latency of a model on OpenVINO beside its vendor's own tool on the same file, like with like.

    benchmark_app -api sync -hint none -nstreams 1 -nthreads 1 -infer_precision f32

Both read the runtime's own clock around each request (`runtime` in a certificate); the median call of a process, and
of several processes the median. A process of ours and one of theirs take turns. The whole call, which a person's
program waits for, stands beside it: it has the Python call in it, which the vendor's tool leaves out.

Models: ResNet-8 and ResNet-56 with untrained weights, and those that are named. Run:
python benchmarks/bench_against_vendor.py [MODEL ...] [--processes 7] [--seconds 1]. A minute on an idle computer.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cells, arguments, folders, opened, table

from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import DeviceSession, Job, MeasurePlan
from edgekd.ir.numerics import Precision

NAME = "against_vendor"
TOOL = Path(sys.executable).parent / "benchmark_app"
OPTIONS = ("-api", "sync", "-hint", "none", "-nstreams", "1", "-nthreads", "1", "-infer_precision", "f32")
BACKEND = Backend(runtime="openvino", provider="cpu")
DEPTHS = {"resnet8": 1, "resnet56": 9}
UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}
ALLOWED, ALLOWED_US = 0.02, 3.0  # from a millisecond on, and below


def made(folder: Path, session: DeviceSession, seed: int) -> list[Path]:
    """One model of some 0.2 ms and one of some 2 ms."""
    from edgekd.artefacts import Format
    from edgekd.compress.quantization.calibrate import calibrate
    from edgekd.export._protocol import ExportOptions
    from edgekd.export.converter import Converter
    from edgekd.records import digest_json
    from edgekd.students.resnet import ResNet
    from edgekd.students.student import new_student, save_student
    from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

    spec = TaskSpec(
        name="random", input=InputSpec(shape=(3, 32, 32)), head=HeadSpec(classes=10), data=digest_json("random")
    )
    files = []
    with Converter(folder / "convert") as converter:
        for name, depth in DEPTHS.items():
            family = ResNet.model_validate({"space": {"widths": [16, 32, 64], "depths": [depth] * 3}})
            student = new_student(family, family.space(spec).at(0), spec, seed)
            save_student(calibrate(student, np.empty((0, 3, 32, 32)), Precision.FLOAT32, "minmax"), folder / name)
            done = converter.convert(
                folder / name, Format.OPENVINO, ExportOptions(), BACKEND, session.describe(), folder / f"{name}.xml"
            )
            if done.artefact is None:
                raise SystemExit(f"{name}: {done.outcome.value} {done.detail}")
            files.append(done.artefact.path)
    return files


def theirs_us(path: Path, shape: str | None, seconds: float) -> float:
    """The median of one run of benchmark_app."""
    command = [str(TOOL), "-m", str(path), *OPTIONS, "-t", f"{seconds:g}"]
    if shape is not None:
        command += ["-shape", shape]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    ((value, unit),) = re.findall(r"Median:\s+([\d.]+) (us|ms|s)\b", said)
    return float(value) * UNITS[unit]


def ours_us(session: DeviceSession, path: Path, seconds: float, seed: int) -> dict[str, float]:
    """One process of ours, as long."""
    plan = MeasurePlan(processes=1, rounds=10, round_ms=seconds * 100, sentinel=False, seed=seed)
    (result,) = session.measure([Job(artefact=Artefact.of(path), backend=BACKEND)], plan)
    if not result.processes:
        raise SystemExit(f"{path}: {result.outcome.value}: {result.detail}")
    (process,) = result.processes
    assert process.runtime_p50_us is not None
    return {"runtime_us": process.runtime_p50_us, "call_us": process.p50_us}


def compared(session: DeviceSession, path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Both sides of one model, in turn."""
    ours, theirs = [], []
    for number in range(options.processes):
        ours.append(ours_us(session, path, options.seconds, number))
        theirs.append(theirs_us(path, options.shape, options.seconds))
    runtime, call = (statistics.median(one[figure] for one in ours) for figure in ("runtime_us", "call_us"))
    vendor = statistics.median(theirs)
    allowed = ALLOWED * vendor if vendor >= 1e3 else ALLOWED_US
    return {
        "model": path.name,
        "runtime_us": runtime,
        "call_us": call,
        "vendor_us": vendor,
        "difference_us": runtime - vendor,
        "allowed_us": allowed,
        "within": abs(runtime - vendor) <= allowed,
        "processes": {"ours": ours, "vendor": theirs},
    }


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All models."""
    session = opened()
    try:
        files = [*made(folder, session, options.seed), *options.models]
        return {"command": ["benchmark_app", *OPTIONS], "models": [compared(session, f, options) for f in files]}
    finally:
        session.close()


def printed(cells: Cells) -> str:
    """What is known so far."""
    rows = [
        (
            Path(row["model"]).stem,
            f"{row['runtime_us']:.1f}",
            f"{row['vendor_us']:.1f}",
            f"{row['difference_us']:+.1f}",
            f"{row['allowed_us']:.1f}",
            "yes" if row["within"] else "no",
            f"{row['call_us']:.1f}",
        )
        for row in (cells.get("openvino") or {"models": []})["models"]
    ]
    return table(("median us", "runtime", "vendor", "differ", "allowed", "within", "whole call"), rows)


def main() -> None:
    parser = arguments(__doc__, NAME)
    parser.add_argument("models", nargs="*", type=Path, help="further files that OpenVINO reads")
    parser.add_argument("--processes", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--shape", help="for models with free axes, as benchmark_app writes it: [1,32,32,3]")
    options = parser.parse_args()
    results, runs = folders(options, NAME)
    settings = {
        "processes": options.processes,
        "seconds": options.seconds,
        "seed": options.seed,
        "models": [path.name for path in options.models],
    }
    cells = Cells(NAME, results, settings)
    if not options.table:
        cells.cell("openvino", lambda: measure(options, runs))
    print(printed(cells))


if __name__ == "__main__":
    main()
