"""Our latency of a model on OpenVINO beside its vendor's own tool on the same file, as a ratio.

    benchmark_app -api sync -hint none -nstreams 1 -nthreads 1 -infer_precision f32

A process of ours and one of theirs in turn, as many as asked; each side's figure is the median over its processes, of
the minimum and of the median call. Run: python benchmarks/bench_against_vendor.py MODEL [MODEL ...]
[--processes 5] [--seconds 1]. About three seconds a process and model.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import DeviceSession, Job, MeasurePlan
from edgekd.devices.local import LocalDevice

TOOL = Path(sys.executable).parent / "benchmark_app"
OPTIONS = ("-api", "sync", "-hint", "none", "-nstreams", "1", "-nthreads", "1", "-infer_precision", "f32")
RESULT = Path(__file__).parent / "results" / "against_vendor.json"
UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}


def theirs_us(path: Path, shape: str | None, seconds: float) -> dict[str, float]:
    """One run of benchmark_app: its minimum and median."""
    command = [str(TOOL), "-m", str(path), *OPTIONS, "-t", f"{seconds:g}"]
    if shape is not None:
        command += ["-shape", shape]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    found = re.findall(r"(Min|Median):\s+([\d.]+) (us|ms|s)\b", said)
    times = {name.lower(): float(value) * UNITS[unit] for name, value, unit in found}
    return {"min_us": times["min"], "p50_us": times["median"]}


def ours_us(session: DeviceSession, path: Path, seconds: float, seed: int) -> dict[str, float]:
    """One process of ours, as long."""
    plan = MeasurePlan(processes=1, rounds=10, round_ms=seconds * 100, sentinel=False, seed=seed)
    job = Job(artefact=Artefact.of(path), backend=Backend(runtime="openvino", provider="cpu"))
    (result,) = session.measure([job], plan)
    if not result.processes:
        raise SystemExit(f"{path}: {result.outcome.value}: {result.detail}")
    return {"min_us": result.processes[0].min_us, "p50_us": result.processes[0].p50_us}


def compare(session: DeviceSession, path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both sides of one model, in turn."""
    ours, theirs = [], []
    for number in range(arguments.processes):
        ours.append(ours_us(session, path, arguments.seconds, number))
        theirs.append(theirs_us(path, arguments.shape, arguments.seconds))
    cell: dict[str, Any] = {"model": path.name, "processes": arguments.processes, "ours": ours, "vendor": theirs}
    for figure in ("min_us", "p50_us"):
        mine, other = (statistics.median(one[figure] for one in side) for side in (ours, theirs))
        cell[figure] = {"ours": mine, "vendor": other, "ratio": mine / other}
    return cell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--shape", help="for models with free axes, as benchmark_app writes it: [1,32,32,3]")
    arguments = parser.parse_args()
    with LocalDevice().open() as session:
        machine = session.describe().model_dump(mode="json")
        cells = [compare(session, path, arguments) for path in arguments.models]
    print(f"{'model':<32} {'figure':<8} {'ours us':>9} {'vendor us':>10} {'ratio':>7}")
    for cell in cells:
        for figure in ("min_us", "p50_us"):
            row = cell[figure]
            print(
                f"{cell['model']:<32} {figure[:-3]:<8} {row['ours']:>9.2f} {row['vendor']:>10.2f} {row['ratio']:>7.3f}"
            )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(
        json.dumps({"machine": machine, "command": ["benchmark_app", *OPTIONS], "cells": cells}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
