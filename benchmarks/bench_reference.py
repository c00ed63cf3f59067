"""`edgekd bench` on the six reference models of MLPerf Tiny (1.x), float32 and int8, on every runtime that loads them.

Shows intervals, the A/A noise, which differences can't be told apart, and where int8 is not faster on this CPU, with
the operators that cost more. Cells: one a backend (TFLite files run in LiteRT with and without XNNPACK and in
OpenVINO; ONNX Runtime loads no TFLite), and `resnet8`: the same ResNet-8 topology exported by edgekd with untrained
weights, so that ONNX Runtime has its say too. int8 and float32 of a cell are measured in one interleaved batch.

Run: EDGEKD_DATA=... python benchmarks/bench_reference.py [--table]. About five minutes on an idle computer.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from cells import Cells, arguments, data_folder, folders, opened, patiently, table

from edgekd.artefacts import Backend, Format
from edgekd.devices._protocol import MeasurePlan
from edgekd.ir.backends import BACKENDS
from edgekd.ir.numerics import Precision

NAME = "reference"
MODELS = ("ic_resnet8", "kws", "vww_96")
TFLITE = tuple(name for name, spec in BACKENDS.items() if Format.TFLITE in spec.formats)
RUNTIMES = ("litert/xnnpack", "onnxruntime/cpu", "openvino/cpu")


def plan(options: argparse.Namespace) -> MeasurePlan:
    """Operators are timed too: they name what regressed."""
    return MeasurePlan(
        processes=3 if options.tiny else 8, rounds=4 if options.tiny else 10, seed=options.seed, profile=True
    )


def bench(models: list[Path], backends: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """One batch."""
    from edgekd import api

    pairs = [(a.name, b.name) for a in models for b in models if a.stem.replace("float32", "int8") == b.stem != a.stem]

    def timed() -> tuple[Any, float]:
        begun = time.monotonic()
        return api.bench(models, backends=backends, plan=plan(options), twins=pairs), time.monotonic() - begun

    report, seconds = patiently(timed)
    return {"bench": report.model_dump(mode="json"), "text": report.lines(), "seconds_a_model": seconds / len(models)}


def reference(backend: str, options: argparse.Namespace) -> dict[str, Any]:
    """All six files on one backend."""
    folder = data_folder() / "mlperf-tiny"
    models = [folder / f"{name}_{precision}.tflite" for name in MODELS for precision in ("float32", "int8")]
    return bench(models, [backend], options)


def own_resnet8(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The ResNet-8 topology in each runtime's own format."""
    from cifar_search import RESNET8, task, without

    from edgekd.export._protocol import ExportOptions
    from edgekd.export.converter import Converter
    from edgekd.ir.plan import Candidate, CompressionPlan
    from edgekd.search.trials.untrained import UntrainedBuilder
    from edgekd.students.resnet import ResNet
    from edgekd.tasks.images.classification import ImageClassification

    described = ImageClassification.model_validate(without(task(True), "kind"))
    family = ResNet.model_validate({"space": RESNET8})
    session = opened()
    fingerprint = session.describe()
    session.close()
    found: dict[str, Any] = {}
    with Converter(folder / "convert") as converter:
        builder = UntrainedBuilder(described, family, converter, ExportOptions(), fingerprint, options.seed)
        for name in RUNTIMES:
            backend, models = Backend.model_validate(name), []
            for precision in (Precision.FLOAT32, Precision.INT8):
                made = builder.make(
                    Candidate(
                        family="resnet",
                        arch=family.space(described.spec).at(0),
                        plan=CompressionPlan(precision=precision),
                        backend=backend,
                    ),
                    folder / backend.runtime / precision.value / f"resnet8_{precision.value}",
                )
                if made.artefact is None:
                    raise SystemExit(f"{name} {precision.value}: {made.outcome.value} {made.detail}")
                models.append(made.artefact.path)
            found[name] = bench(models, [name], options)
    return {"backends": found}


def printed(cells: Cells) -> str:
    """What is known so far."""
    rows, notes = [], []
    found = cells.all()
    made = [found[_file(name)] for name in TFLITE if _file(name) in found]
    made += found.get("resnet8", {"backends": {}})["backends"].values()
    for cell in made:
        report = cell["bench"]
        if "seconds_a_model" in cell:
            processes = report["processes"]
            backend = report["rows"][0]["backend"]
            notes.append(
                f"{cell['seconds_a_model']:.1f} s a model on {backend}, {processes} processes each, operators timed too"
            )
        for row in report["rows"]:
            figures = {figure["metric"]: figure for figure in row["figures"]}
            if "latency.p50" not in figures:
                rows.append((row["model"].split(".")[0], row["backend"], row["outcome"], "", "", row["size_bytes"], ""))
                continue
            p50 = figures["latency.p50"]
            interval = f"[{p50['low']:.1f}, {p50['high']:.1f}]"
            rows.append(
                (
                    row["model"].split(".")[0],
                    row["backend"],
                    f"{p50['value']:.1f}",
                    interval,
                    f"{report['quality']['noise']:.1%}",
                    row["size_bytes"],
                    row["order"],
                )
            )
        tied: dict[int, list[str]] = {}
        for row in report["rows"]:
            tied.setdefault(row["order"], []).append(row["model"].split(".")[0])
        for place, names in tied.items():
            if place and len(names) > 1:
                notes.append(f"can't be told apart on {report['rows'][0]['backend']}: {' = '.join(names)}")
        for twin in report["twins"]:
            result, compared = twin["result"], twin["result"]["comparison"]
            if not result["faster"]:
                word = f"{compared['ratio']:.2f}x" if compared["distinguishable"] else "the same, within noise,"
                lost = [f"{r['count']} {r['kind']} +{r['extra_us']:.1f} us" for r in result["regressions"][:3]]
                name = twin["compressed_model"].split(".")[0]
                notes.append(f"not faster: {name} on {twin['backend']}: {word} of float32")
                notes += [f"  {', '.join(lost)}"] if lost else []
    return table(("model", "backend", "p50 us", "95 %", "A/A", "bytes", "order"), rows, "\n".join(notes))


def _file(backend: str) -> str:
    return backend.replace("/", "-")


def main() -> None:
    options = arguments(__doc__, NAME).parse_args()
    results, runs = folders(options, NAME)
    cells = Cells(NAME, results, {"tiny": options.tiny, "seed": options.seed})
    if not options.table:
        for backend in TFLITE:
            cells.cell(_file(backend), lambda backend=backend: reference(backend, options))
        cells.cell("resnet8", lambda: own_resnet8(options, runs))
    print(printed(cells))


if __name__ == "__main__":
    main()
