"""One's own model, the pretrained CIFAR-10 ResNet-20 (91.73 %), compressed for three runtimes with `edgekd compress`.

Cells: `own` (the model as it is, in every precision on every runtime, side by side: its float32 latency, and which
precision is fastest where); then one `RUNTIME` cell each: `edgekd compress` at that precision with p50 <= half of the
runtime's own float32 p50, certified; the goal is 88.5 % on all test images by the exported file. `int8`: the chosen
int8 file beside its float32 twin on the same runtime: bytes, latency and points.

Where the CPU has an 8-bit dot product, int8 alone may halve the latency, and then no channel has to go: the search
finds that by itself. ``--of fastest`` asks for half of the fastest precision's own latency instead, so that something
has to be pruned; its cells go to a folder of their own.

Time: a ResNet-20 learns some 600 images/s on two cores in float32, twice that in bfloat16 where the CPU has it. Each
runtime gets 24 minutes in all: candidates inherit their weights and one epoch of recovery ranks them (about ten are
trained), one finalist recovers for 12 epochs. The teacher is ResNet-56 with two views, cached once for all three. The
learning rate is a fifth of a fresh student's: what was inherited is to be mended, not forgotten.

Run: EDGEKD_DATA=... python benchmarks/compress_resnet20.py [--only litert] [--table]. 75 minutes on two idle cores;
--tiny takes about five minutes and proves nothing.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from cells import ROOT, Cells, arguments, data_folder, edgekd, folders, opened, patiently, table, write_yaml
from cifar_search import task, teacher

from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import DeviceSession, Job, MeasurePlan
from edgekd.ir.backends import BACKENDS
from edgekd.ir.numerics import Precision
from edgekd.ir.support import COMPARED
from edgekd.measure.figures import figures_of
from edgekd.project import Project, read_project

NAME = "compress_resnet20"
RUNTIMES = {"litert": "litert/xnnpack", "onnxruntime": "onnxruntime/cpu", "openvino": "openvino/cpu"}
SHARE = 0.5
GOAL = 0.885
EXPORT = {"input": "uint8", "layout": "nhwc", "preprocess": "fold"}


def project(options: argparse.Namespace, precision: str, folder: Path) -> Path:
    """The person's own project: their model, ResNet-56 to learn from, one precision. Its target stands beside it."""
    short = options.tiny
    described = teacher()
    distill = {
        "loss": {"kd": {"temperature": 4, "weight": 0.9}},
        "epochs": 1 if short else 12,
        "views": 1 if short else 2,
        "learning_rate": 0.02,
        "warmup_epochs": 0.5,
        "augment": {"crop": 4},
    }
    content = {
        "schema": "edgekd.project/1",
        # the model must be given what it was trained with
        "task": {**task(short), "mean": described["mean"], "std": described["std"]},
        "teacher": described,
        "student": {
            "family": "pruned",
            "model": f"{ROOT / 'examples' / 'cifar_resnet.py'}:resnet20",
            "weights": str(data_folder() / "cifar-resnets" / "resnet20.npz"),
            "ratios": [0.5, 0.75, 1.0],
        },
        "target": "half",
        "recipe": [{"distill": distill}, {"quantize": {"precision": precision, "samples": 64 if short else 512}}],
        "search": {
            "budget": "6 min" if short else f"{options.minutes:g} min",
            "seed": options.seed,
            "finalists": 1,
            "reference_archs": 2,
            "batch": 2,
            "accuracy": {"inherit": {"recover": 0 if short else 1}},
            **({"trials": 2} if short else {}),
        },
        "export": EXPORT,
    }
    return write_yaml(folder / "project.yaml", content)


def target(folder: Path, backend: str, p50_us: float | None, report: bool = False) -> None:
    """Half of the model's own latency on this runtime; no limit where none is known yet."""
    latency = {} if p50_us is None else {"latency": {"p50": f"{p50_us:.3f} us", "report": report}}
    shared = {"schema": "edgekd.target/1", "device": "this-computer", "threads": 1}
    write_yaml(folder / "half.yaml", {**shared, "backends": [backend], "budgets": latency})


def measure_own(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every precision on every runtime, in one interleaved batch; float32 and int8 scored on all test images."""
    from edgekd.export.converter import Converter
    from edgekd.export.score import score_artefact
    from edgekd.ir.plan import Candidate, CompressionPlan
    from edgekd.search.trials.untrained import UntrainedBuilder
    from edgekd.students.student import load_student

    target(folder, RUNTIMES["litert"], None)
    read = read_project(project(options, "int8", folder))
    space = read.family.space(read.task.spec)
    whole = space.at(space.size - 1)  # every axis at its last choice: all channels, all blocks
    session, jobs, folders_of = opened(), {}, {}
    try:
        with Converter(folder / "convert") as converter:
            builder = UntrainedBuilder(
                read.task, read.family, converter, read.export, session.describe(), options.seed
            )  # the family gives trained weights
            for runtime, name in RUNTIMES.items():
                backend = Backend.model_validate(name)
                for precision in COMPARED:
                    candidate = Candidate(
                        family="pruned", arch=whole, plan=CompressionPlan(precision=precision), backend=backend
                    )
                    place = folder / "own" / f"{runtime}-{precision.value}"
                    made = builder.make(candidate, place / "model")
                    if made.artefact is None:
                        print(f"{runtime} {precision.value}: {made.outcome.value} {made.detail}")
                        continue
                    key = f"{runtime} {precision.value}"
                    jobs[key], folders_of[key] = Job(artefact=made.artefact, backend=backend), place
        plan = MeasurePlan(processes=3 if options.tiny else 5, seed=options.seed)
        measured = dict(zip(jobs, session.measure(list(jobs.values()), plan), strict=True))
        rows = {}
        for key, measurement in measured.items():
            p50 = next(f for f in figures_of(measurement) if f.metric == "latency.p50")
            rows[key] = {"p50": p50.model_dump(mode="json"), "size_bytes": jobs[key].artefact.size_bytes}
            if key.endswith((" float32", " int8")):
                score = score_artefact(
                    session,
                    jobs[key],
                    load_student(folders_of[key] / "student"),
                    read.task,
                    "test",
                    read.export,
                    folder / "score",
                )
                rows[key]["accuracy"] = score.value
    finally:
        session.close()
    fastest = {
        runtime: min(
            (key.split()[1] for key in rows if key.startswith(f"{runtime} ")),
            key=lambda precision, runtime=runtime: rows[f"{runtime} {precision}"]["p50"]["value"],
        )
        for runtime in RUNTIMES
    }
    return {"own": rows, "fastest": fastest}


def compress(options: argparse.Namespace, own: dict[str, Any], runtime: str, folder: Path) -> dict[str, Any]:
    """One `edgekd compress` for one runtime."""
    from edgekd.store.run import Run

    precision = own["fastest"][runtime]
    plain = own["own"][f"{runtime} float32"]["p50"]["value"]
    base = plain if options.of == "float32" else own["own"][f"{runtime} {precision}"]["p50"]["value"]
    target(folder, RUNTIMES[runtime], SHARE * base, report=options.tiny)
    code, answer = edgekd("compress", project(options, precision, folder), "--run", folder / "run")
    run = Run.open(folder / "run")
    chosen = next((finalist for finalist in run.finalists() if finalist.chosen), None)
    return {
        "exit_code": code,
        "precision": precision,
        "bound_us": SHARE * base,
        "float32_us": plain,
        "run": str((folder / "run").relative_to(ROOT)) if folder.is_relative_to(ROOT) else str(folder / "run"),
        "outcome": answer["outcome"],
        "certificate": answer["certificate"],
        "candidate": str(chosen.candidate) if chosen else None,
        "trials": len(run.trials()),
    }


def beside_twin(cells: Cells, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Each certified file and its own student in float32, exported for the same runtime, measured side by side."""
    from edgekd import api
    from edgekd.bundle.verify import read_bundle
    from edgekd.export.converter import Converter
    from edgekd.store.run import Run

    rows: dict[str, Any] = {}
    for runtime, name in RUNTIMES.items():
        cell = cells.get(runtime)
        if cell is None or cell["certificate"] is None or cell["precision"] == "float32":
            continue
        run = Run.open(ROOT / cell["run"])
        certificate, _ = read_bundle(run.folder / "bundle")
        read = read_project(Path(run.header.project_file))
        place = folder / "twins" / runtime
        place.mkdir(parents=True, exist_ok=True)
        backend = Backend.model_validate(name)
        session = opened()
        try:
            with Converter(place / "convert") as converter:
                plain = float_twin(run, read, session, converter, place)
        finally:
            session.close()
        small = copied(Artefact.of(run.folder / "bundle" / certificate.model), place, "net_int8")
        large = copied(plain, place, "net_f32")
        plan = MeasurePlan(processes=3 if options.tiny else 5, profile=True, seed=options.seed)
        report = patiently(lambda f=(large, small), b=backend, p=plan: api.bench(f, backends=[str(b)], plan=p))
        rows[runtime] = {
            "bench": report.model_dump(mode="json"),
            "float_size_bytes": plain.size_bytes,
            "size_bytes": Artefact.of(small).size_bytes,
            "points": 100 * (certificate.accuracy.value - certificate.float_twin.value)
            if certificate.float_twin
            else None,
        }
    return {"rows": rows}


def float_twin(run: Any, read: Project, session: DeviceSession, converter: Any, folder: Path) -> Artefact:
    """A run's winner in float32, as a file for the same runtime: as large and as fast as after its training."""
    from edgekd.ir.plan import CompressionPlan
    from edgekd.search.trials.untrained import UntrainedBuilder

    chosen = next(finalist for finalist in run.finalists() if finalist.chosen)
    plain = chosen.candidate.but(plan=CompressionPlan(precision=Precision.FLOAT32))
    builder = UntrainedBuilder(read.task, read.family, converter, read.export, session.describe(), run.header.seed)
    made = builder.make(plain, folder / "twin" / "model")
    if made.artefact is None:
        raise SystemExit(f"{plain}: {made.outcome.value} {made.detail}")
    return made.artefact


def copied(artefact: Artefact, folder: Path, name: str) -> Path:
    """A file, and its weights where it has them, under a plain name."""
    for suffix in (artefact.path.suffix, *([".bin"] if artefact.path.suffix == ".xml" else [])):
        shutil.copyfile(artefact.path.with_suffix(suffix), folder / f"{name}{suffix}")
    return folder / f"{name}{artefact.path.suffix}"


def printed(cells: Cells) -> str:
    """What is known so far."""
    found = cells.all()
    if "own" not in found:
        return "nothing measured yet"
    rows = []
    for runtime in RUNTIMES:
        own = found["own"]["own"]
        for precision in COMPARED:
            key = f"{runtime} {precision.value}"
            if key in own:
                scored = f"{own[key]['accuracy']:.2%}" if "accuracy" in own[key] else ""
                rows.append(
                    (f"{key}, own", scored, f"{own[key]['size_bytes']:,}", f"{own[key]['p50']['value']:.0f}", "")
                )
        cell = found.get(runtime)
        if cell is not None and cell["certificate"] is None:
            rows.append((f"{runtime} compressed", "-", "-", f"exit {cell['exit_code']}", ""))
        elif cell is not None:
            figures = {figure["metric"]: figure for figure in cell["certificate"]["figures"]}
            p50 = figures["latency.p50"]["value"]
            rows.append(
                (
                    f"{runtime} {cell['precision']}, compressed",
                    f"{cell['certificate']['accuracy']['value']:.2%}",
                    f"{int(figures['size.file']['value']):,}",
                    f"{p50:.0f}",
                    f"{p50 / cell['float32_us']:.0%}",
                )
            )
    notes = [f"goal: {GOAL:.1%} at {SHARE:.0%} of the runtime's own float32 p50"]
    for runtime, row in found.get("int8", {"rows": {}})["rows"].items():
        twin = row["bench"]["twins"][0]["result"]["comparison"]
        points = "" if row["points"] is None else f", {row['points']:+.2f} points"
        notes.append(
            f"{runtime} int8 against its float twin: {row['size_bytes'] / row['float_size_bytes']:.0%} of the bytes, "
            f"{twin['ratio']:.2f}x the latency{points}"
        )
    return table(("ResNet-20", "test", "bytes", "p50 us", "of float32"), rows, "\n".join(notes))


def main() -> None:
    parser = arguments(__doc__, NAME)
    parser.add_argument("--minutes", type=float, default=24, help="for each runtime, in all (default: 24)")
    parser.add_argument("--of", choices=("float32", "fastest"), default="float32", help="half of which own latency")
    parser.add_argument("--only", choices=tuple(RUNTIMES), action="append", help="this runtime")
    options = parser.parse_args()
    results, runs = folders(options, NAME)
    runs = runs if options.of == "float32" else runs / "of-fastest"
    runs.mkdir(exist_ok=True)
    settings = {"tiny": options.tiny, "seed": options.seed, "minutes": options.minutes, "of": options.of}
    cells = Cells(NAME if options.of == "float32" else f"{NAME}-of-fastest", results, settings)
    if options.table:
        print(printed(cells))
        return
    assert set(RUNTIMES.values()) <= set(BACKENDS)
    own = cells.cell("own", lambda: measure_own(options, runs))
    for runtime in options.only or RUNTIMES:
        cells.cell(runtime, lambda runtime=runtime: compress(options, own, runtime, runs / runtime))
    if all(cells.get(runtime) for runtime in RUNTIMES):
        cells.cell("int8", lambda: beside_twin(cells, options, runs))
    print(printed(cells))


if __name__ == "__main__":
    main()
