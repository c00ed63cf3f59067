"""Is a student whose arch was trained against the device's latency better than one that is evenly scaled?

Two budgets, each the measured latency (LiteRT, float32, one thread, 5th percentile: a shared machine moves it least) of
an evenly scaled ResNet, and 2 % for noise: a budget of just what was measured would refuse the network it is of every
second time. Widths are w, 2w, 4w, one block a stage. For each budget, `edgekd search` with `by: differentiable` finds
an arch that was measured to keep it; then the scaled network and the arch found are trained by the same recipe, from
the same seeds, and scored on the test images. Both files lie side by side in one batch in the end. The same recipe
under the two budgets must come to two different students.

The space has every evenly scaled network in it. An earlier one had not (it ended at the small one, and the large one
fell between its widths), and no evenly scaled arch was among those tried: its students were 1.3 and 1.4 points worse
than the scaled ones, at 3 and 14 % less time (`results/hardware_aware_coarse`).

CIFAR-10, 10,000 training images, teacher ResNet-56 (93.39 %), a stem of stride 2; ``--data digits`` is ten times
faster, with a teacher trained here, and too easy to tell two students apart (both are right on 98.6 to 98.9 %).
Cells: `budgets`, `search-NAME`, `NAME-WHO-SEED`, `side_by_side`.

Run: EDGEKD_DATA=... python benchmarks/hardware_aware.py [--table] [--jobs 2] [--seeds 3]. About 45
minutes on two idle cores, of which the two searches take 22; --tiny takes a few minutes and proves nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cells, arguments, cifar10, edgekd, folders, opened, patiently, table, write_yaml
from cifar_search import teacher as cifar_teacher
from scipy import stats

NAME = "hardware_aware"
SLACK = 1.02
BACKEND = "litert/xnnpack"
WHO = ("differentiable", "scaled")


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What changes results."""
    shared = {"data": options.data, "seed": options.seed, "tiny": options.tiny}
    if options.data == "digits":
        return {
            **shared,
            "scaled": {"small": 8, "large": 20},
            "space": {"widths": [[4, 24, 4], [8, 48, 8], [8, 96, 8]], "depths": [[1, 2], [1, 3], [1, 3]]},
            "stem_stride": 1,
            "epochs": 2 if options.tiny else 30,
            "views": 2 if options.tiny else 5,
            "differentiable": {"table": 8 if options.tiny else 24, "epochs": 2 if options.tiny else 30, "tries": 8},
        }
    return {
        **shared,
        "scaled": {"small": 12, "large": 20},
        "space": {"widths": [[8, 32, 4], [16, 64, 8], [32, 128, 16]], "depths": [[1, 2], [1, 3], [1, 3]]},
        "stem_stride": 2,
        "epochs": 2 if options.tiny else 15,
        "views": 2 if options.tiny else 5,
        "differentiable": {"table": 8 if options.tiny else 24, "epochs": 2 if options.tiny else 12, "tries": 8},
    }


def task(options: argparse.Namespace) -> dict[str, Any]:
    """The task section of the projects."""
    if options.data == "digits":
        return {"kind": "digits"}
    limit = 600 if options.tiny else 10_000
    data = {"kind": "image-classification", "data": str(cifar10(options.tiny)), "flip": True, "calibration": 64}
    return {**data, "validation": 0.1, "train_limit": limit}


def project(options: argparse.Namespace, student: Mapping[str, Any], search: Mapping[str, Any]) -> dict[str, Any]:
    """A project file; its target stands beside it."""
    chosen = settings(options)
    distill = {
        "loss": {"kd": {"temperature": 4, "weight": 0.9}},
        "epochs": chosen["epochs"],
        "views": chosen["views"],
        "batch_size": 64 if options.data == "digits" else 128,
        "augment": {"crop": 1 if options.data == "digits" else 4},
    }
    trained = {"kind": "train", "width": 48, "epochs": 2 if options.tiny else 40}
    return {
        "schema": "edgekd.project/1",
        "task": task(options),
        "teacher": trained if options.data == "digits" else cifar_teacher(),
        "student": {"family": "resnet", "space": {**student, "stem_stride": [chosen["stem_stride"]]}},
        "target": "target.yaml",
        "recipe": [{"distill": distill}, {"quantize": {"precision": "float32"}}],
        "search": {"seed": options.seed, **search},
    }


def read(options: argparse.Namespace, student: Mapping[str, Any], folder: Path) -> Any:
    """The project with its parts built."""
    from edgekd.project import read_project

    if not (folder / "target.yaml").is_file():
        write_target(folder, 1e6)
    return read_project(write_yaml(folder / "project.yaml", project(options, student, {})))


def write_target(folder: Path, p5_us: float) -> None:
    """One budget."""
    budgets = {"latency": {"p5": f"{p5_us:.3f} us"}}
    content = {"schema": "edgekd.target/1", "device": "this-computer", "backends": [BACKEND], "budgets": budgets}
    write_yaml(folder / "target.yaml", content)


def scaled_space(width: int) -> dict[str, Any]:
    """The evenly scaled network alone."""
    return {"widths": [width, 2 * width, 4 * width], "depths": [1, 1, 1]}


def space_of(arch: Mapping[str, int]) -> dict[str, Any]:
    """An arch alone."""
    return {kind: [arch[f"{kind[:-1]}{stage}"] for stage in (1, 2, 3)] for kind in ("widths", "depths")}


def measured(options: argparse.Namespace, students: Sequence[Mapping[str, Any]], runs: Path) -> list[dict[str, float]]:
    """Untrained files of some students, all in one batch: 5th percentile and p50 in microseconds."""
    from edgekd.artefacts import Backend
    from edgekd.devices._protocol import Job, MeasurePlan
    from edgekd.export.converter import Converter
    from edgekd.ir.numerics import Precision
    from edgekd.ir.plan import Candidate, CompressionPlan
    from edgekd.measure.figures import figures_of
    from edgekd.search.trials.untrained import UntrainedBuilder

    backend, plan = Backend.model_validate(BACKEND), CompressionPlan(precision=Precision.FLOAT32)
    session = opened()
    try:
        with tempfile.TemporaryDirectory(dir=runs) as scratch, Converter(Path(scratch) / "convert") as converter:
            jobs = []
            for number, student in enumerate(students):
                read_in = read(options, student, Path(scratch) / str(number))
                family, spec = read_in.family, read_in.task.spec
                builder = UntrainedBuilder(read_in.task, family, converter, read_in.export, session.describe(), 0)
                candidate = Candidate(family="resnet", arch=family.space(spec).at(0), plan=plan, backend=backend)
                made = builder.make(candidate, Path(scratch) / f"model{number}" / "model")
                if made.artefact is None:
                    raise SystemExit(f"{candidate} can't be made: {made.detail}")
                jobs.append(Job(artefact=made.artefact, backend=backend))
            measurements = patiently(lambda: session.measure(jobs, MeasurePlan(processes=8, seed=options.seed)))
    finally:
        session.close()
    found = [{figure.metric: figure.value for figure in figures_of(each)} for each in measurements]
    return [{"p5_us": row["latency.p5"], "p50_us": row["latency.p50"]} for row in found]


def budgets(options: argparse.Namespace, runs: Path) -> dict[str, Any]:
    """The scaled networks' latencies are the budgets."""
    scaled = settings(options)["scaled"]
    found = measured(options, [scaled_space(width) for width in scaled.values()], runs)
    return {"budgets": dict(zip(scaled, found, strict=True))}


def search(options: argparse.Namespace, name: str, p5_us: float, runs: Path) -> dict[str, Any]:
    """One whole search; the arch is the chosen finalist's, or else that of the first finalist."""
    from edgekd.store.run import Run

    chosen, folder = settings(options), runs / name
    asked = {
        "by": {"differentiable": chosen["differentiable"]},
        "budget": "4 h",
        "finalists": 1,
        "reference_archs": 4,
        "accuracy": {"short": {"epochs": max(1, chosen["epochs"] // 5)}},
    }
    write_target(folder, p5_us)
    path = write_yaml(folder / "project.yaml", project(options, chosen["space"], asked))
    code, answer = edgekd("search", path, "--run", folder / "run")
    run = Run.open(folder / "run")
    finalists, model, supernet = run.finalists(), run.latency_model(), run.supernet()
    if not finalists or model is None or supernet is None:
        raise SystemExit(f"{name}: no finalist, {answer['outcome']}")
    taken = next((finalist for finalist in finalists if finalist.chosen), finalists[0])
    return {
        "exit_code": code,
        "run": f"{name}/run",
        "arch": dict(taken.candidate.arch.choices),
        "mode": dict(supernet.mode.choices),
        "points": [point.model_dump(mode="json") for point in supernet.points],
        "model": {
            "form": model.form,
            "samples": model.samples,
            "median": model.error_median,
            "worst": model.error_worst,
        },
        "terms": [term.model_dump(mode="json") for term in model.terms],
        "outcome": answer["outcome"]["summary"],
    }


def trained(options: argparse.Namespace, student: Mapping[str, Any], seed: int, runs: Path) -> dict[str, Any]:
    """One training by the recipe, scored on validation and test in PyTorch."""
    from edgekd.distill.predict import predict
    from edgekd.events import SilentEvents
    from edgekd.running import with_teacher
    from edgekd.stages import StageContext
    from edgekd.students.student import new_student

    with tempfile.TemporaryDirectory(dir=runs) as scratch:
        ready = with_teacher(read(options, student, Path(scratch)), SilentEvents())
        spec, task_ = ready.task.spec, ready.task
        context = StageContext(
            task=task_,
            teacher=ready.teacher,
            device=None,
            backend=None,
            folder=Path(scratch) / "stage",
            cache=runs / "cache",
            seed=seed,
            progress=lambda _: None,
            stop=lambda: False,
        )
        fresh = new_student(ready.family, ready.family.space(spec).at(0), spec, seed)
        module = ready.recipe[0].run(fresh, context).module
    scores = {}
    for name in ("validation", "test"):
        split = task_.split(name)
        scores[name] = task_.score(predict(module, split.inputs, spec), split.labels).value
    return {"student": student, "train_seed": seed, **scores}


def student_of(options: argparse.Namespace, cells: Cells, name: str, who: str) -> dict[str, Any]:
    """What is trained under a budget."""
    if who == "scaled":
        return scaled_space(settings(options)["scaled"][name])
    return space_of((cells.get(f"search-{name}") or {})["arch"])


def make(options: argparse.Namespace, cells: Cells, cell: str, runs: Path) -> None:
    """One training, in this process."""
    name, who, seed = cell.split("-")
    student = student_of(options, cells, name, who)
    cells.cell(cell, lambda: trained(options, student, int(seed), runs))


def one_thread() -> None:
    """How every training of this table computes."""
    import torch

    torch.set_num_threads(1)


def make_all(options: argparse.Namespace, cells: Cells, runs: Path) -> None:
    """Everything that is missing: budgets, searches, trainings several at a time, and the files side by side."""
    found = cells.cell("budgets", lambda: budgets(options, runs))["budgets"]
    for name, figures in found.items():
        cells.cell(f"search-{name}", lambda n=name, us=SLACK * figures["p5_us"]: search(options, n, us, runs))
    seeds = range(1, options.seeds + 1)
    waiting = [f"{name}-{who}-{seed}" for seed in seeds for name in found for who in WHO]
    waiting = [cell for cell in waiting if cells.get(cell) is None]
    if waiting:
        one_thread()
        make(options, cells, waiting.pop(0), runs)  # with it the teacher's answers, once
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context, initializer=one_thread) as pool:
        for future in as_completed([pool.submit(make, options, cells, cell, runs) for cell in waiting]):
            future.result()
    pairs = [(name, who) for name in found for who in WHO]

    def beside() -> dict[str, Any]:
        rows = measured(options, [student_of(options, cells, name, who) for name, who in pairs], runs)
        return {"latencies": {f"{name}-{who}": row for (name, who), row in zip(pairs, rows, strict=True)}}

    cells.cell("side_by_side", beside)


def printed(options: argparse.Namespace, cells: Cells) -> str:
    """Accuracy at each budget, paired by seed; latency of both in one batch."""
    beside = (cells.get("side_by_side") or {"latencies": {}})["latencies"]
    rows, notes = [], []
    for name in settings(options)["scaled"]:
        scores = {
            who: {s: cell["test"] for s in range(1, 100) if (cell := cells.get(f"{name}-{who}-{s}"))} for who in WHO
        }
        both = sorted(set(scores["differentiable"]) & set(scores["scaled"]))
        if not both:
            continue
        gains = np.array([100 * (scores["differentiable"][s] - scores["scaled"][s]) for s in both])
        for who in WHO:
            mine = 100 * np.array([scores[who][s] for s in both])
            row = [f"{name} {who}", len(both), f"{mine.mean():.2f}", f"{mine.std(ddof=1) if len(both) > 1 else 0:.2f}"]
            p = float(stats.ttest_1samp(gains, 0.0).pvalue) if len(both) > 1 else float("nan")
            gained = [f"{gains.mean():+.2f}", f"{p:.3f}"] if who == "differentiable" else ["", ""]
            at = beside.get(f"{name}-{who}")
            rows.append([*row, *gained, f"{at['p5_us']:.1f}" if at else "-", f"{at['p50_us']:.1f}" if at else "-"])
        found = cells.get(f"search-{name}")
        if found:
            arch = " ".join(f"{axis}={choice}" for axis, choice in found["arch"].items())
            notes += [f"{name}: {arch}"]
            notes += [
                f"  latency model: held out {found['model']['median']:.1%}, {found['model']['worst']:.1%} at most"
            ]
    notes.append("test top-1 in %, points over scaled paired by seed, p of a paired t-test; latency in one batch")
    return table(["budget", "seeds", "mean", "dev", "points", "p", "low us", "p50 us"], rows, "\n".join(notes))


def main() -> None:
    """Make what is missing, print the table."""
    parser = arguments(__doc__, NAME)
    parser.add_argument("--data", choices=("cifar10", "digits"), default="cifar10")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, each on one thread")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    results, runs = folders(options, NAME)
    if options.data == "digits":
        results, runs = results / "digits", runs / "digits"
        runs.mkdir(parents=True, exist_ok=True)
    cells = Cells(NAME, results, settings(options))
    if not options.table:
        make_all(options, cells, runs)
    print(printed(options, cells))


if __name__ == "__main__":
    main()
