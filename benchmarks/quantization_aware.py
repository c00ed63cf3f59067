"""Quantization-aware training on a ResNet-20 whose weights have 4 or 3 bits, on three runtimes.

The pretrained CIFAR-10 ResNet-20 is quantized to static int8 files whose weights have integers of fewer bits, once by
calibration alone and once with `train: {epochs: 2}`. Cells, one a number of bits and way:

    reference    accuracy of the integer reference in PyTorch on the test images: what was trained
    accuracy     of each runtime's file on the same images
    bytes        of each file, and of the file compressed with zlib

Run: EDGEKD_DATA=... python benchmarks/quantization_aware.py [--epochs 2] [--table]. About 40 minutes on two idle cores;
--tiny takes two minutes and proves nothing.
"""

from __future__ import annotations

import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cells, arguments, folders, opened, table
from sensitivity import EXPORTERS, OPTIONS, Work

from edgekd.artefacts import Backend
from edgekd.compress.quantization.reference import reference_module
from edgekd.compress.quantization.stage import Quantize
from edgekd.devices._protocol import Job
from edgekd.distill.predict import predict
from edgekd.export.answers import file_answers
from edgekd.stages import StageContext
from edgekd.students._protocol import Student

NAME = "quantization_aware"
BITS = (8, 4, 3)


def context(work: Work, folder: Path) -> StageContext:
    """The stage's surroundings, for no runtime of its own: one student for all three."""
    return StageContext(
        task=work.task, teacher=None, device=None, backend=None, folder=folder, cache=work.runs / "cache", seed=0,
        progress=lambda at: print(f"\r{at.note:<78}", end="", flush=True), stop=lambda: False,
    )  # fmt: skip


def scored(work: Work, student: Student, folder: Path) -> dict[str, Any]:
    """Accuracy of the reference and of every runtime's file."""
    found = {}
    session = opened()
    try:
        for backend, exporter in EXPORTERS.items():
            where, path = Backend.model_validate(backend), folder / f"model{exporter.format.suffix}"
            artefact = exporter.export(student, OPTIONS, where, None, path)
            answers = file_answers(
                session, Job(artefact=artefact, backend=where), student, work.raw, OPTIONS, folder / "scratch"
            )
            found[backend] = {
                "accuracy": float((np.asarray(answers).argmax(1) == work.labels).mean()),
                "bytes": artefact.size_bytes,
                "compressed": sum(len(zlib.compress(file.read_bytes(), 9)) for file in artefact.files),
            }
    finally:
        session.close()
    answers = predict(reference_module(student), work.raw, work.task.spec)
    return {"reference": float((answers.argmax(1) == work.labels).mean()), "runtimes": found}


def printed(cells: Cells) -> str:
    """A row a configuration."""
    rows = []
    for name, cell in cells.all().items():
        files = [cell["runtimes"][backend] for backend in EXPORTERS]
        accuracies = [f"{100 * each['accuracy']:.2f}" for each in files]
        rows.append([name, f"{100 * cell['reference']:.2f}", *accuracies, f"{files[0]['compressed'] / 1e3:.0f}"])
    head = ("weights", "trained %", "LiteRT %", "ORT %", "OpenVINO %", "zlib kB")
    return table(head, rows, "trained: the integer reference in PyTorch; zlib: of the TFLite file")


def main() -> None:
    """Make the cells that are missing, and print the table."""
    parser = arguments(__doc__, NAME)
    parser.add_argument("--images", type=int, default=10000, help="test images that are scored")
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    results, runs = folders(options, NAME)
    settings = {"tiny": options.tiny, "seed": options.seed, "images": options.images, "epochs": options.epochs}
    cells = Cells(NAME, results, settings)
    if not options.table:
        work = Work(options, runs)

        def made(bits: int, trained: bool, folder: Path) -> dict[str, Any]:
            training = {"train": {"epochs": options.epochs}} if trained else {}
            stage = Quantize.model_validate({"weight_bits": bits, **training})
            folder.mkdir(parents=True, exist_ok=True)
            begun = time.perf_counter()
            student = stage.run(work.student, context(work, folder))
            return {"seconds": round(time.perf_counter() - begun), **scored(work, student, folder)}

        for bits in BITS:
            for trained in (False, True) if bits < 8 else (False,):
                name = f"{bits}-bits" + ("-trained" if trained else "")
                cells.cell(name, lambda bits=bits, trained=trained, name=name: made(bits, trained, runs / name))
    print(printed(cells))


if __name__ == "__main__":
    main()
