"""Do the intervals hold on this machine? Coverage of a fresh process, width, and false positives of comparisons.

One model is measured as an A/A pair in many interleaved fresh processes. Every window of five processes gives an
interval, and the process after it is the fresh one. Windows of both sides are compared with each other: whatever is
told apart is a false positive. Results go to a JSON file, cell by cell.

    python benchmarks/bench_intervals.py model.tflite --backend litert/xnnpack --processes 105 --out intervals.json
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np

from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import Job, Measurement, MeasurePlan, Outcome
from edgekd.devices.local import LocalDevice
from edgekd.measure.compare import compare
from edgekd.measure.interval import fresh_process_interval

WINDOW = 5
FIGURES = ("p5_us", "p50_us", "p95_us", "mean_us")


def coverage(measurement: Measurement, figure: str) -> dict[str, float]:
    """Hits among all windows, and the median width relative to the median figure."""
    values = [getattr(process, figure) for process in measurement.processes]
    hits, widths = [], []
    for start in range(len(values) - WINDOW):
        window = values[start : start + WINDOW]
        low, high = fresh_process_interval(window)
        hits.append(low <= values[start + WINDOW] <= high)
        widths.append((high - low) / float(np.median(window)))
    return {
        "median_us": float(np.median(values)),
        "coverage": float(np.mean(hits)),
        "windows": len(hits),
        "width": float(np.median(widths)),
        "width_p90": float(np.quantile(widths, 0.9)),
    }


def false_positives(a: Measurement, b: Measurement) -> dict[str, float]:
    """Windows of the same generations of two identical jobs, compared."""
    claims, ratios = [], []
    for start in range(0, len(a.processes) - WINDOW + 1):
        sides = [m.but(processes=m.processes[start : start + WINDOW], sentinel=None) for m in (a, b)]
        found = compare(*sides)
        claims.append(found.distinguishable)
        ratios.append(abs(found.ratio - 1.0))
    return {
        "false_positives": float(np.mean(claims)),
        "windows": len(claims),
        "difference_median": float(np.median(ratios)),
        "difference_p95": float(np.quantile(ratios, 0.95)),
    }


def main() -> None:
    """Measure, compute, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--backend", default="litert/xnnpack")
    parser.add_argument("--processes", type=int, default=105)
    parser.add_argument("--device", default="this-computer", help="name of the lock")
    parser.add_argument("--out", type=Path, default=Path("intervals.json"))
    arguments = parser.parse_args()
    job = Job(artefact=Artefact.of(arguments.model), backend=Backend.model_validate(arguments.backend))
    session = LocalDevice(name=arguments.device).open()
    before = os.getloadavg()[0]
    try:
        fingerprint = session.describe()
        plan = MeasurePlan(processes=arguments.processes, sentinel=False)
        pair = session.measure([job, job], plan, lambda _, done, total: print(f"\r{done}/{total}", end=""))
    finally:
        session.close()
    print()
    for measurement in pair:
        if measurement.outcome is not Outcome.OK:
            raise SystemExit(f"{measurement.outcome.value}: {measurement.detail}")
    result = {
        "schema": "edgekd.benchmark.intervals/1",
        "model": arguments.model.name,
        "sha256": job.artefact.sha256,
        "backend": arguments.backend,
        "fingerprint": fingerprint.model_dump(mode="json"),
        "load_average": [before, os.getloadavg()[0]],
        "plan": plan.model_dump(mode="json"),
        "figures": {figure: [coverage(m, figure) for m in pair] for figure in FIGURES},
        "comparison": false_positives(*pair),
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for figure in FIGURES:
        for cell in result["figures"][figure]:
            print(f"{figure:8} {cell['median_us']:9.1f} us  covered {cell['coverage']:.0%}  width {cell['width']:.2%}")
    print(f"A/A false positives {result['comparison']['false_positives']:.1%}")


if __name__ == "__main__":
    main()
