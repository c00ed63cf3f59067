"""Is `memory.model` what a model really adds? Beside a reading that shares nothing with ours.

Six reference models of MLPerf Tiny in LiteRT and in OpenVINO. Ours: the kernel's own peak of a measured process above
the runtime alone, by `edgekd bench`'s measurement (median of five processes). The other: a plain script of a dozen
lines loads the model and calls it, and from outside, as fast as it goes, the sum over its memory maps is read
(`/proc/PID/smaps`) and the largest is kept; median of five as well. They agree where they differ by 5 % or 256 KiB.

Run: EDGEKD_DATA=... python benchmarks/bench_memory.py. Two minutes; writes results/memory.json.
"""

from __future__ import annotations

import argparse
import json
import re
import select
import statistics
import subprocess
import sys
from pathlib import Path

from cells import data_folder, opened, table, versions

from edgekd.agent.fingerprint import fingerprint
from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import Job, MeasurePlan
from edgekd.ir.backends import asked_of_agent
from edgekd.measure.figures import figure_of

MODELS = [f"{name}_{precision}.tflite" for name in ("ic_resnet8", "kws", "vww_96") for precision in ("float32", "int8")]
SCRIPTS = {
    "litert/xnnpack": """
import sys, numpy
from ai_edge_litert.interpreter import Interpreter
numpy.random.RandomState(0).standard_normal(4)
print("ready", flush=True); sys.stdin.readline()
model = Interpreter(model_path=sys.argv[1], num_threads=1)
model.allocate_tensors()
one = model.get_input_details()[0]
model.set_tensor(one["index"], numpy.ones(one["shape"], one["dtype"]))
for _ in range(int(sys.argv[2])): model.invoke()
print("done", flush=True); sys.stdin.readline()
""",
    "openvino/cpu": """
import sys, numpy, openvino
numpy.random.RandomState(0).standard_normal(4)
core = openvino.Core()
core.get_property("CPU", "FULL_DEVICE_NAME")
print("ready", flush=True); sys.stdin.readline()
how = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "1"}
model = core.read_model(sys.argv[1])
if model.is_dynamic():
    model.reshape([axis.get_length() if axis.is_static else 1 for axis in model.input().partial_shape])
request = core.compile_model(model, "CPU", how).create_infer_request()
request.input_tensors[0].data[...] = 1
for _ in range(int(sys.argv[2])): request.infer()
print("done", flush=True); sys.stdin.readline()
""",
}
CALLS, TIMES = 300, 5
WITHIN, WITHIN_BYTES = 0.05, 256 << 10


def resident_bytes(pid: int) -> int:
    """Over all memory maps."""
    text = Path(f"/proc/{pid}/smaps").read_text(encoding="ascii", errors="replace")
    return 1024 * sum(map(int, re.findall(r"^Rss:\s+(\d+) kB", text, re.MULTILINE)))


def independent(script: str, model: Path) -> int:
    """Bytes that one fresh process took at most, beyond what it had with the runtime alone."""
    command = [sys.executable, "-c", script, str(model), str(CALLS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"the plain script failed on {model.name}")
        before = peak = resident_bytes(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        while not select.select([process.stdout], [], [], 0)[0]:
            peak = max(peak, resident_bytes(process.pid))
        process.stdout.readline()
        peak = max(peak, resident_bytes(process.pid))
        process.stdin.write("\n")
    return peak - before


def main() -> None:
    """Both readings of each model, side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "memory.json")
    options = parser.parse_args()
    folder, rows = data_folder() / "mlperf-tiny", []
    for name, script in SCRIPTS.items():
        jobs = [Job(artefact=Artefact.of(folder / m), backend=Backend.model_validate(name)) for m in MODELS]
        session = opened()
        try:
            measured = session.measure(jobs, MeasurePlan(processes=TIMES))
        finally:
            session.close()
        for job, measurement in zip(jobs, measured, strict=True):
            ours = int(figure_of(measurement, "memory.model").value)
            theirs = int(statistics.median(independent(script, job.artefact.path) for _ in range(TIMES)))
            agrees = abs(ours - theirs) <= max(WITHIN * theirs, WITHIN_BYTES)
            rows.append(
                {
                    "model": job.artefact.path.name,
                    "backend": name,
                    "ours": ours,
                    "independent": theirs,
                    "agrees": agrees,
                }
            )
    here = {"schema": "edgekd.benchmark/1", "benchmark": "memory", "evidence": "measured"}
    found = {**here, "machine": fingerprint(asked_of_agent()), "versions": versions(), "rows": rows}
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    head = ["model", "backend", "ours KiB", "other KiB", "apart KiB", "agree"]
    print(
        table(
            head,
            [
                [
                    row["model"],
                    row["backend"],
                    f"{row['ours'] / 1024:.0f}",
                    f"{row['independent'] / 1024:.0f}",
                    f"{abs(row['ours'] - row['independent']) / 1024:.0f}",
                    "yes" if row["agrees"] else "no",
                ]
                for row in rows
            ],
        )
    )


if __name__ == "__main__":
    main()
