"""Spoken digits: 3,000 WAV files in folders to a certified file that takes raw samples, by the README's commands.

The recordings are those of the Free Spoken Digit Dataset (8 kHz), written as a person would have them: a folder a
digit, in `train` and `test` (the data's own split: six speakers, all in both). Cells:

    tflite      init --data, check, search on LiteRT, verify; example.py answers test files; the file is scored on all
                test files with the runtime, `wave` and preprocess.json alone
    onnx        the same on ONNX Runtime
    openvino    the same on OpenVINO
    precisions  the student that `tflite` chose, as float32, float16, dynamic-int8 and int8 on each runtime: accuracy
                and bytes of each file, and all latencies in one interleaved batch

Of the project as `init` writes it the runtime is changed, and the epochs and the space are cut so that a search takes
minutes: 15 epochs of the teacher, which is trained once and kept in the cache, 40 of a student, `width: [8, 32]`.

Run: EDGEKD_DATA=... python benchmarks/spoken_digits.py [--minutes 4]. About 11 minutes on two idle cores; --tiny takes
five.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cells import EDGEKD, Cells, arguments, data_folder, folders, opened, patiently, table

NAME = "spoken_digits"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RUNTIMES = {"tflite": "litert/xnnpack", "onnx": "onnxruntime/cpu", "openvino": "openvino/cpu"}
SUFFIXES = {"tflite": "model.tflite", "onnx": "model.onnx", "openvino": "model.xml"}
PRECISIONS = ("float32", "float16", "dynamic-int8", "int8")
EXAMPLES = 5
EPOCHS = (15, 40, 6)  # of the teacher, of a student, and of one that estimates


def main() -> None:
    """Make the cells that are missing, and print the table."""
    parser = arguments(__doc__, NAME)
    parser.add_argument("--minutes", type=float, default=4.0, help="of each search")
    options = parser.parse_args()
    if options.tiny:
        options.minutes = 1.0
    results, runs = folders(options, NAME)
    cells = Cells(NAME, results, {"minutes": options.minutes, "seed": options.seed})
    if not options.table:
        write_recordings(runs / "recordings")
        cells.cell("tflite", lambda: walked(runs, "tflite", options))
        cells.cell("precisions", lambda: precisions(runs, options))
        for name in ("onnx", "openvino"):
            cells.cell(name, lambda name=name: walked(runs, name, options))
    print(report(cells))


def write_recordings(root: Path) -> None:
    """WAV files of 16 bits: ``train/seven/7_speaker_12.wav``."""
    if root.is_dir():
        return
    draft = root.with_name("recordings-draft")
    shutil.rmtree(draft, ignore_errors=True)
    with np.load(data_folder() / "fsdd-8k.npz") as arrays:
        speakers, rate = arrays["speakers"].tolist(), int(arrays["sample_rate"])
        for part in ("train", "test"):
            values, lengths = arrays[f"x_{part}"], arrays[f"length_{part}"]
            for at, digit in enumerate(arrays[f"y_{part}"].tolist()):
                folder = draft / part / DIGITS[digit]
                folder.mkdir(parents=True, exist_ok=True)
                speaker, index = speakers[arrays[f"speaker_{part}"][at]], arrays[f"index_{part}"][at]
                with wave.open(str(folder / f"{digit}_{speaker}_{index}.wav"), "wb") as file:
                    file.setnchannels(1)
                    file.setsampwidth(2)
                    file.setframerate(rate)
                    file.writeframes(values[at, : lengths[at]].astype("<i2").tobytes())
    draft.replace(root)


def walked(runs: Path, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """From recordings to a verified bundle whose example answers."""
    folder = runs / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "recordings").symlink_to(runs / "recordings")
    seconds = dict[str, float]()

    def step(called: str, *words: str) -> dict[str, Any]:
        begun = time.monotonic()
        done = subprocess.run(
            [EDGEKD, *words, "--format", "json"], cwd=folder, stdout=subprocess.PIPE, text=True, check=False
        )
        seconds[called] = round(time.monotonic() - begun, 1)
        if done.returncode not in (0, 6):
            raise SystemExit(f"edgekd {' '.join(words)} ended with {done.returncode}: {done.stdout}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    step("init", "init", "--data", "recordings")
    change(folder / "here.yaml", r"backends: \[[^]]*\]", f"backends: [{RUNTIMES[name]}]")
    taught, learned, short = (2, 2, 1) if options.tiny else EPOCHS
    change(folder / "project.yaml", r"epochs: \d+\n  options", f"epochs: {taught}\n  options")
    change(folder / "project.yaml", r"epochs: \d+\n      augment", f"epochs: {learned}\n      augment")
    change(folder / "project.yaml", r"epochs: \d+}}}", f"epochs: {short}}}}}}}")
    change(folder / "project.yaml", r"width: \[8, 48\], depth: \[1, 3\]", "width: [8, 32], depth: [1, 2]")
    change(folder / "here.yaml", r"accuracy: [^\n]*", f"accuracy: {{floor: {0.05 if options.tiny else 0.8}}}")
    step("check", "check", "project.yaml")
    found = step("search", "search", "project.yaml", "--run", "run", "--budget", f"{options.minutes:g} min")
    verified = step("verify", "verify", "run/bundle")
    bundle = folder / "run" / "bundle"
    stated = json.loads((bundle / "preprocess.json").read_text())
    answer = reader(bundle / found["certificate"]["model"])
    tests = test_files(folder / "run")
    right = [labelled(answer(prepared(path, stated)), stated) == label for path, label in tests]
    return {
        "seconds": seconds,
        "outcome": found["outcome"],
        "certificate": found["certificate"],
        "verified": verified.get("answer", verified),
        "accuracy": float(np.mean(right)),
        "examples": [[label, example(bundle, path)] for path, label in tests[:: len(tests) // EXAMPLES][:EXAMPLES]],
    }


def change(path: Path, pattern: str, text: str) -> None:
    """One edit of a file, as a person would make it."""
    new, count = re.subn(pattern, lambda _: text, path.read_text(), count=1, flags=re.DOTALL)
    if not count:
        raise SystemExit(f"{path} has nothing like {pattern}")
    path.write_text(new)


def test_files(run: Path) -> list[tuple[Path, str]]:
    """The test recordings of a run, with their classes."""
    with (run / "splits.csv").open(encoding="utf-8", newline="") as listed:
        return [(Path(row["path"]), row["label"]) for row in csv.DictReader(listed) if row["split"] == "test"]


def prepared(path: Path, stated: Mapping[str, Any]) -> Any:
    """A recording as the model takes it, by what preprocess.json says; nothing of edgekd is used."""
    sound, given = stated["sound"], stated["input"]
    if given["steps"] not in ([], ["order the axes as batch, time, channel"]):
        raise SystemExit(f"preprocess.json asks for more than this reads: {given['steps']}")
    with wave.open(str(path)) as file:
        if (file.getframerate(), file.getsampwidth(), file.getnchannels()) != (sound["rate"], 2, 1):
            raise SystemExit(f"{path} is another kind of recording")
        values = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    over = len(values) - sound["samples"]
    values = values[over // 2 : over // 2 + sound["samples"]] if over > 0 else values
    before = (sound["samples"] - len(values)) // 2
    values = np.pad(values, (before, sound["samples"] - len(values) - before))
    return values.reshape(given["shape"]).astype(given["dtype"])


def reader(path: Path) -> Callable[[Any], Any]:
    """What a file answers to one input, asked of its runtime."""
    if path.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path), num_threads=1)
        interpreter.allocate_tensors()

        def litert(batch: Any) -> Any:
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], batch)
            interpreter.invoke()
            return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]

        return litert
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda batch: session.run(None, {session.get_inputs()[0].name: batch})[0][0]
    import openvino

    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: model(batch)[0][0]


def labelled(logits: Any, stated: Mapping[str, Any]) -> str:
    """The class that is answered."""
    return str(stated["output"]["labels"][int(np.argmax(logits))])


def example(bundle: Path, recording: Path) -> str:
    """What the bundle's example prints for a WAV file, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "example.py", recording], cwd=bundle, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.strip()


def precisions(runs: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One student at several precisions on each runtime: accuracy, bytes, and latencies of one batch."""
    from edgekd.artefacts import Backend
    from edgekd.compress.quantization.calibrate import calibrate
    from edgekd.devices._protocol import Job, MeasurePlan
    from edgekd.export._protocol import ExportOptions
    from edgekd.export.onnx.exporter import OnnxExporter
    from edgekd.export.openvino import OpenvinoExporter
    from edgekd.export.tflite.exporter import TfliteExporter
    from edgekd.ir.encoding import Annotations
    from edgekd.ir.numerics import Precision
    from edgekd.measure.figures import figures_of
    from edgekd.project import read_project
    from edgekd.store.run import Run
    from edgekd.students.student import load_student

    exporters = {"tflite": TfliteExporter(), "onnx": OnnxExporter(), "openvino": OpenvinoExporter()}
    run, task = Run.open(runs / "tflite" / "run"), read_project(runs / "tflite" / "project.yaml").task
    (chosen,) = [finalist for finalist in run.finalists() if finalist.chosen]
    assert chosen.student is not None
    student = load_student(run.students / chosen.student).but(annotations=Annotations())
    samples, tests = task.split("calibration").inputs, task.split("test")
    folder, session = runs / "precisions", opened()
    folder.mkdir(exist_ok=True)
    jobs, rows = dict[str, Job](), dict[str, dict[str, Any]]()
    try:
        here = session.describe()
        for kind, exporter in exporters.items():
            backend = Backend.model_validate(RUNTIMES[kind])
            for precision in map(Precision, PRECISIONS):
                own = calibrate(student, samples, precision, "percentile", here, backend)
                name = f"{kind} {precision.value}"
                path = folder / name.replace(" ", "-") / SUFFIXES[kind]
                path.parent.mkdir(exist_ok=True)
                artefact = exporter.export(own, ExportOptions(), backend, here, path)
                answer = reader(path)
                found = [int(np.argmax(answer(np.ascontiguousarray(sample.T[None])))) for sample in tests.inputs]
                jobs[name] = Job(artefact=artefact, backend=backend)
                rows[name] = {
                    "accuracy": float(np.mean(np.asarray(found) == tests.labels)),
                    "size_bytes": artefact.size_bytes,
                }
        plan = MeasurePlan(processes=3 if options.tiny else 5, seed=options.seed)
        measured = patiently(lambda: session.measure(list(jobs.values()), plan))
    finally:
        session.close()
    for name, measurement in zip(jobs, measured, strict=True):
        figures = {figure.metric: figure for figure in figures_of(measurement)}
        for metric in ("latency.p50", "latency.p5"):
            rows[name][metric] = figures[metric].model_dump(mode="json") if metric in figures else None
    return {"arch": chosen.candidate.arch.model_dump(mode="json"), "files": rows}


def report(cells: Cells) -> str:
    """Both tables."""
    found = cells.all()
    walks = [_walk(name, cell) for name, cell in found.items() if name in RUNTIMES]
    parts = [table(("format", "precision", "certificate", "file", "p95", "size", "search", "examples"), walks)]
    if "precisions" in found:
        cell = found["precisions"]
        rows = [
            (
                name,
                f"{row['accuracy']:.1%}",
                f"{row['size_bytes'] / 1024:.0f} KiB",
                *(f"{row[kind]['value']:.0f} us" if row[kind] else "-" for kind in ("latency.p50", "latency.p5")),
            )
            for name, row in cell["files"].items()
        ]
        note = f"load average before: {cell['load_average_before']}"
        parts.append(table(("the student of tflite", "test", "size", "p50", "low"), rows, note))
    return "\n\n".join(parts)


def _walk(name: str, cell: Mapping[str, Any]) -> tuple[object, ...]:
    certificate = cell["certificate"]
    figures = {figure["metric"]: figure["value"] for figure in certificate["figures"]}
    right = sum(printed.split()[-1] == label for label, printed in cell["examples"])
    return (
        name,
        certificate["candidate"]["plan"]["precision"],
        f"{certificate['accuracy']['value']:.1%}",
        f"{cell['accuracy']:.1%}",
        f"{figures['latency.p95']:.0f} us",
        f"{figures['size.file'] / 1024:.0f} KiB",
        f"{cell['seconds']['search']:.0f} s",
        f"{right} of {len(cell['examples'])}",
    )


if __name__ == "__main__":
    main()
