"""One layer at a time left in float: what each layer of an int8 ResNet-20 costs, on three runtimes.

The pretrained CIFAR-10 ResNet-20 is quantized to static int8 once as a whole and once for each of its layers with
`keep_float: [LAYER]`. Cells, a layer each beside `int8` and `float32`:

    agreement    of the file's classes with the float model's in PyTorch, on the first test images
    accuracy     on the same images
    bytes        of the file
    kernels      that really ran for convolutions and linear layers, as the runtime's own profiler names them, counted

`latency` holds the 5th percentile of every file, all files of a runtime in one interleaved batch.

Run: EDGEKD_DATA=... python benchmarks/sensitivity.py [--images 2000] [--table]. About 7 minutes on two idle cores;
--tiny takes two minutes.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import ROOT, Cells, arguments, data_folder, folders, opened, table
from cifar_search import task, teacher, test_split, without

from edgekd.agent.fingerprint import fingerprint
from edgekd.artefacts import Artefact, Backend
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.compress.quantization.rules import points_of
from edgekd.devices._protocol import Fingerprint, Job, MeasurePlan
from edgekd.export._protocol import Exporter, ExportOptions
from edgekd.export.answers import file_answers
from edgekd.export.onnx.exporter import OnnxExporter
from edgekd.export.openvino import OpenvinoExporter
from edgekd.export.tensors import normalised
from edgekd.export.tflite.exporter import TfliteExporter
from edgekd.ir.backends import asked_of_agent
from edgekd.ir.numerics import Precision
from edgekd.measure.figures import figure_of
from edgekd.students._protocol import Student
from edgekd.students.graph import trace
from edgekd.students.own import Own
from edgekd.students.student import new_student
from edgekd.tasks.images.classification import ImageClassification

NAME = "sensitivity"
EXPORTERS: Mapping[str, Exporter] = {
    "litert/xnnpack": TfliteExporter(),
    "onnxruntime/cpu": OnnxExporter(),
    "openvino/cpu": OpenvinoExporter(),
}
OPTIONS = ExportOptions(input="uint8")
CALIBRATION = 512


class Work:
    """The float model, its data, and where files are kept."""

    def __init__(self, options: argparse.Namespace, runs: Path) -> None:
        self.runs, self.images = runs, 200 if options.tiny else options.images
        described = teacher()
        settings = {**without(task(options.tiny), "kind"), "mean": described["mean"], "std": described["std"]}
        self.task = ImageClassification.model_validate(settings)
        weights = str(data_folder() / "cifar-resnets" / "resnet20.npz")
        model = f"{ROOT / 'examples' / 'cifar_resnet.py'}:resnet20"
        family = Own.model_validate({"model": model, "weights": weights}, context={"folder": ROOT})
        self.student = new_student(family, family.space(self.task.spec).at(0), self.task.spec, 0)
        test = test_split(options.tiny)
        self.raw, self.labels = test.inputs[: self.images], test.labels[: self.images]
        self.calibration = self.task.split("calibration").inputs[:CALIBRATION]
        self.device = Fingerprint.model_validate(fingerprint(asked_of_agent()))
        with torch.no_grad():
            seen = torch.from_numpy(normalised(self.raw, self.task.spec))
            self.classes = torch.cat([self.student.module(part).argmax(1) for part in seen.split(200)]).numpy()

    @property
    def layers(self) -> list[str]:
        """Convolutions and linear layers, in order."""
        return list(points_of(trace(self.student, decomposed=False)).weights)

    def file(self, name: str, backend: str) -> Path:
        """Where a configuration's file is."""
        folder = self.runs / name.replace(":", "-") / backend.partition("/")[0]
        return folder / f"model{EXPORTERS[backend].format.suffix}"

    def quantized(self, name: str, backend: str) -> Student:
        """The student of a configuration."""
        precision = Precision.FLOAT32 if name == "float32" else Precision.INT8
        keep = [] if name in ("float32", "int8") else [name]
        where = Backend.model_validate(backend)
        return calibrate(self.student, self.calibration, precision, "percentile", self.device, where, keep_float=keep)

    def made(self, name: str) -> dict[str, Any]:
        """One configuration's cell."""
        cell = {}
        session = opened()
        try:
            for backend, exporter in EXPORTERS.items():
                student, path, where = (
                    self.quantized(name, backend),
                    self.file(name, backend),
                    Backend.model_validate(backend),
                )
                path.parent.mkdir(parents=True, exist_ok=True)
                job = Job(artefact=exporter.export(student, OPTIONS, where, self.device, path), backend=where)
                answers = file_answers(session, job, student, self.raw, OPTIONS, path.parent)
                classes = np.asarray(answers).argmax(1)
                (ran,) = session.measure([job], MeasurePlan(processes=1, rounds=2, profile=True))
                cell[backend] = {
                    "agreement": float((classes == self.classes).mean()),
                    "accuracy": float((classes == self.labels).mean()),
                    "bytes": job.artefact.size_bytes,
                    "kernels": kernels_of(ran.operators),
                }
        finally:
            session.close()
        return {"in_float": list(student.annotations.float_operators), "runtimes": cell}

    def timed(self, names: list[str], plan: MeasurePlan) -> dict[str, Any]:
        """Every file's latency."""
        found = {}
        session = opened()
        try:
            for backend in EXPORTERS:
                where = Backend.model_validate(backend)
                jobs = [Job(artefact=Artefact.of(self.file(name, backend)), backend=where) for name in names]
                measured = session.measure(jobs, plan)
                lows = [figure_of(one, "latency.p5").model_dump(mode="json") for one in measured]
                found[backend] = dict(zip(names, lows, strict=True))
        finally:
            session.close()
        return {"low": found}


def kernels_of(operators: Any) -> dict[str, int]:
    """What the runtime ran for products with weights, counted by its own word and precision."""
    words = ("conv", "gemm", "fully", "matmul", "inner")
    named = (f"{operator.kind} {operator.precision}".strip() for operator in operators)
    return dict(Counter(name for name in named if any(word in name.lower() for word in words)))


def printed(cells: Cells) -> str:
    """A row a configuration: agreement, and latency against the whole network in int8."""
    found = cells.all()
    latency = found.pop("latency", {}).get("low", {})
    if not found:
        return "nothing measured yet"
    rows = []
    for name in sorted(found, key=lambda name: (name not in ("float32", "int8"), found[name]["order"])):
        row = [found[name]["layer"]]
        for backend in EXPORTERS:
            figures, lows = found[name]["runtimes"][backend], latency.get(backend, {})
            layer = found[name]["layer"]
            ratio = f"{lows[layer]['value'] / lows['int8']['value']:.2f}x" if layer in lows else "-"
            row += [f"{100 * figures['agreement']:.2f}", ratio]
        rows.append(row)
    head = ("in float", "LiteRT %", "time", "ORT %", "time", "OpenVINO %", "time")
    note = "agreement with the float model; time: 5th percentile, of the whole network's in int8"
    return table(head, rows, note)


def main() -> None:
    """Make the cells that are missing, and print the table."""
    parser = arguments(__doc__, NAME)
    parser.add_argument("--images", type=int, default=2000, help="test images that are scored")
    options = parser.parse_args()
    results, runs = folders(options, NAME)
    cells = Cells(NAME, results, {"tiny": options.tiny, "seed": options.seed, "images": options.images})
    if not options.table:
        work = Work(options, runs)
        names = ["float32", "int8", *(work.layers[:3] if options.tiny else work.layers)]
        for order, name in enumerate(names):
            about = {"layer": name, "order": order}
            cells.cell(name.replace(":", "-"), lambda name=name, about=about: {**about, **work.made(name)})
        plan = MeasurePlan(processes=2 if options.tiny else 5, seed=options.seed)
        cells.cell("latency", lambda: work.timed(names, plan))
    print(printed(cells))


if __name__ == "__main__":
    main()
