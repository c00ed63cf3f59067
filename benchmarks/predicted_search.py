"""What does the latency predictor buy a search? The same search with it and without, and again where tables are known.

CIFAR-10 (4,000 training images, two epochs a candidate, teacher ResNet-56), family `resnet` with 1,152 archs, LiteRT
and ONNX Runtime, float32, one limit of time: the measured latency of an evenly scaled network (16-32-64), which a small
part of the space keeps (6 % of its archs have no more multiply-adds). Each search takes as many trials. Three ways,
from the same seeds:

- `without`: `search: {predict: false}`;
- `with`: the default, on a device of which nothing is known;
- `known`: the same after a search from another seed has left its readings in the device's tables.

Two things are compared: what the search is asked for, the best accuracy within the limit; and the front of accuracy
against latency there, as the area it dominates (hypervolume; Zitzler & Thiele 1999). That also counts how far below the
limit a network is, which nothing in this search asks for. Of each: how many measured trials, and how many seconds of
the search, a way needs to come to 99 % of what the poorest of the three that found anything came to in the end.
Measurements of reference archs are the same in all of them and not counted.

Cells: `budget`, `SEED-WAY`. Run: EDGEKD_DATA=... python benchmarks/predicted_search.py [--seeds 3] [--table]. About
an hour on two idle cores; --tiny takes a few minutes and proves nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cells, arguments, cifar10, edgekd, folders, table, write_yaml
from cifar_search import teacher
from hardware_aware import measured, scaled_space

NAME = "predicted_search"
BACKENDS = ["litert/xnnpack", "onnxruntime/cpu"]
WAYS = ("without", "with", "known")
SPACE = {"widths": [[8, 32, 8], [16, 64, 16], [32, 128, 32]], "depths": [[1, 2], [1, 3], [1, 3]]}
LIMIT_WIDTH, CHANCE, SHARE = 16, 0.1, 0.99


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What changes results."""
    return {
        "tiny": options.tiny,
        "trials": 12 if options.tiny else 48,
        "train": 600 if options.tiny else 4000,
        "epochs": 1 if options.tiny else 2,
        "space": SPACE,
        "backends": BACKENDS,
    }


def project(options: argparse.Namespace, seed: int, predict: bool) -> dict[str, Any]:
    """A project file; its target stands beside it."""
    chosen = settings(options)
    task = {"kind": "image-classification", "data": str(cifar10(options.tiny)), "flip": True, "calibration": 64}
    distill = {
        "loss": {"kd": {"temperature": 4, "weight": 0.9}},
        "epochs": chosen["epochs"],
        "views": 1,
        "batch_size": 64,
        "augment": {"crop": 4},
    }
    return {
        "schema": "edgekd.project/1",
        "task": {**task, "validation": 0.2 if options.tiny else 0.1, "train_limit": chosen["train"]},
        "teacher": teacher(),
        "student": {"family": "resnet", "space": {**SPACE, "stem_stride": [2]}},
        "target": "target.yaml",
        "recipe": [{"distill": distill}, {"quantize": {"precision": "float32"}}],
        "search": {
            "seed": seed,
            "budget": "1 h",
            "trials": chosen["trials"],
            "finalists": 1,
            "reference_archs": 4,
            "predict": predict,
            "accuracy": {"short": {"epochs": chosen["epochs"]}},
        },
    }


def limit(options: argparse.Namespace, runs: Path) -> dict[str, Any]:
    """The evenly scaled network's 5th percentile, and 2 % for noise."""
    (found,) = measured(argparse.Namespace(**vars(options), data="cifar10"), [scaled_space(LIMIT_WIDTH)], runs)
    return {"p5_us": round(1.02 * found["p5_us"], 2)}


def searched(options: argparse.Namespace, seed: int, way: str, p5_us: float, runs: Path) -> dict[str, Any]:
    """One whole search, and what its trials came to in the order in which they ended."""
    from edgekd.store.run import Run

    folder = runs / f"{seed}-{way}"
    shutil.rmtree(folder, ignore_errors=True)
    tables = folder / "data"
    if way == "known":
        other = seed % options.seeds + 1 if options.seeds > 1 else seed
        shutil.copytree(runs / f"{other}-with" / "data", tables)
    limits = {"latency": {"p5": f"{p5_us} us"}}
    content = {"schema": "edgekd.target/1", "device": "this-computer", "backends": BACKENDS, "budgets": limits}
    write_yaml(folder / "target.yaml", content)
    path = write_yaml(folder / "project.yaml", project(options, seed, way != "without"))
    os.environ["XDG_DATA_HOME"] = str(tables)
    code, _ = edgekd("search", path, "--run", folder / "run")
    run = Run.open(folder / "run")
    deployments = run.deployments()
    assert deployments is not None
    begun = max(reference_arch.ended_s for reference_arch in run.reference_archs())
    rows = []
    for trial in sorted(run.trials(), key=lambda one: (one.ended_s, one.number)):
        figures = {figure.metric: figure.value for figure in trial.figures}
        rows.append(
            {
                "outcome": trial.outcome,
                "p5_us": figures.get("latency.p5"),
                "accuracy": trial.accuracy.value if trial.accuracy else None,
                "ended_s": round(trial.ended_s - begun, 2),
            }
        )
    fits = [
        {
            "batch": fit.batch,
            "removed": {str(one.deployment): one.removed for one in fit.deployments},
            "seconds": fit.seconds,
        }
        for fit in run.predictors()
    ]
    return {"exit_code": code, "trials": rows, "fits": fits}


def area(points: Sequence[tuple[float, float]], p5_us: float) -> float:
    """What (latency, accuracy) points within the limit dominate, of all there is between it and chance."""
    within = sorted(point for point in points if point[0] <= p5_us)
    ends = [*(us for us, _ in within[1:]), p5_us]
    best, covered = CHANCE, 0.0
    for (us, accuracy), end in zip(within, ends, strict=False):
        best = max(best, accuracy)
        covered += (end - us) * (best - CHANCE)
    return covered / (p5_us * (1.0 - CHANCE))


def areas(rows: Sequence[Mapping[str, Any]], p5_us: float) -> list[float]:
    """The front's area after each trial."""
    known: list[tuple[float, float]] = []
    found = []
    for row in rows:
        if row["accuracy"] is not None and row["p5_us"] is not None:
            known.append((row["p5_us"], row["accuracy"]))
        found.append(area(known, p5_us))
    return found


def bests(rows: Sequence[Mapping[str, Any]], p5_us: float) -> list[float]:
    """The best accuracy within the limit after each trial; 0 while there is none."""
    known = [row["accuracy"] or 0.0 if (row["p5_us"] or p5_us + 1) <= p5_us else 0.0 for row in rows]
    return [max(known[: place + 1]) for place in range(len(known))]


Reached = dict[str, tuple[int, float]]
"""Of each way that came there: trials and seconds."""


def reached(found: Mapping[str, Any], curves: Mapping[str, Sequence[float]]) -> Reached:
    """When each way came to nearly what the poorest came to in the end."""
    level = SHARE * min((curve[-1] for curve in curves.values() if curve[-1] > 0), default=0.0)
    there: Reached = {}
    for way, curve in curves.items():
        at = next((place for place, value in enumerate(curve) if value >= level > 0), None)
        if at is not None:
            there[way] = (at + 1, found[way]["trials"][at]["ended_s"])
    return there


def printed(options: argparse.Namespace, cells: Cells) -> str:
    """Trials and seconds to the same accuracy and to the same front, a row a search."""
    p5_us = (cells.get("budget") or {"p5_us": 0.0})["p5_us"]
    rows, goals = [], {"accuracy": bests, "front": areas}
    ratios: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for seed in range(1, options.seeds + 1):
        found = {way: cell for way in WAYS if (cell := cells.get(f"{seed}-{way}"))}
        curves = {goal: {way: of(cell["trials"], p5_us) for way, cell in found.items()} for goal, of in goals.items()}
        there = {goal: reached(found, each) for goal, each in curves.items()}
        for way, cell in found.items():
            within = sum(t["p5_us"] is not None and t["p5_us"] <= p5_us for t in cell["trials"])
            shown = {"accuracy": f"{100 * curves['accuracy'][way][-1]:.1f}", "front": f"{curves['front'][way][-1]:.4f}"}
            row = [f"{seed} {way}", f"{within}/{len(cell['trials'])}"]
            for goal in goals:
                at = there[goal].get(way)
                row += [shown[goal], *([str(at[0]), f"{at[1]:.0f}"] if at else ["-", "-"])]
            last, fitted = cell["trials"][-1]["ended_s"], sum(fit["seconds"] for fit in cell["fits"])
            rows.append([*row, f"{last:.0f}", f"{fitted:.0f}"])
        for goal, each in there.items():
            for way in set(each) & set(WAYS[1:]) if "without" in each else ():
                pair = tuple(mine / other for mine, other in zip(each[way], each["without"], strict=True))
                ratios.setdefault((goal, way), []).append(pair)
    notes = [
        f"limit {p5_us} us; trials and seconds from the first trial on, to {SHARE:.0%} of the",
        "poorest way's accuracy and front; geometric means over without, least and most:",
    ]
    for (goal, way), pairs in sorted(ratios.items()):
        of = f" ({len(pairs)} pairs)" if len(pairs) < options.seeds else ""
        trials, seconds = (
            f"{np.exp(np.log(each).mean()):.2f} ({each.min():.2f}-{each.max():.2f})" for each in np.array(pairs).T
        )
        notes.append(f"  to the {goal}, {way}: {trials} of the trials, {seconds} of the time{of}")
    head = ["seed", "within", "best %", "trials", "s", "area", "trials", "s", "all s", "fits s"]
    return table(head, rows, "\n".join(notes))


def main() -> None:
    """Make what is missing, print the table."""
    parser = arguments(__doc__, NAME)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    results, runs = folders(options, NAME)
    cells = Cells(NAME, results, settings(options))
    if not options.table:
        p5_us = cells.cell("budget", lambda: limit(options, runs))["p5_us"]
        for way in WAYS:  # what is known comes from the searches before
            for seed in range(1, options.seeds + 1):
                cells.cell(f"{seed}-{way}", lambda s=seed, w=way: searched(options, s, w, p5_us, runs))
    print(printed(options, cells))


if __name__ == "__main__":
    main()
