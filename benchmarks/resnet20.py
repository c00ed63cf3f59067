"""The public yardstick: ResNet-20 on CIFAR-10, alone and distilled from ResNet-56, the same training otherwise.

Alone it has 91.73 % by the authors of these weights; ResNet-56 has 93.39 %. Both are trained here on the official
50,000 images less 1,000 that validate, by the same schedule, and scored on the official 10,000 after the last epoch.
How much of the gap between the student alone and its teacher is closed? The goal is 60 %.

How to distil is chosen first, by short trainings (20,000 images, 10 epochs) on 5,000 validation images. The pretrained
teacher has seen those, so they flatter whatever is like it; therefore a second way is trained whole and shown beside
the chosen one: hints first and answers later, as FitNets (Romero 2015) are trained. A student alone sees each image
anew in every epoch; with a teacher it sees one of four views that the teacher has answered.

A ResNet-20 of the family `resnet` has 1x1 convolutions as shortcuts (option B; theirs is option A) and 274,442
parameters, theirs 269,722.

Cells: `choice-answers` and `choice-WAY`; `answers`, then `distilled`, `then-kd` and `alone`. Two at a time, each on one
thread. Run: EDGEKD_DATA=... python benchmarks/resnet20.py [--table] [--jobs 2]. On two idle cores 15 minutes for the
choice and 90 for the rest, and 20 GB of disk; --tiny takes a minute and proves nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cells import Cells, arguments, folders, table
from trainings import Setting, in_parallel, prepared, trained

NAME = "resnet20"
TEACHER, AUTHORS = 0.9339, 0.9173
KD = {"temperature": 4, "weight": 0.9}
ALONE: dict[str, Any] = {"loss": "ce", "views": None}
WAYS: Mapping[str, dict[str, Any]] = {
    "kd": {"loss": {"kd": KD}},
    "fitnet": {"loss": {"fitnet": {"weight": 30}}},
    "both": {"loss": {"kd": KD, "fitnet": {"weight": 30}}},
    "fading": {"loss": {"kd": KD, "fitnet": {"weight": {"from": 30, "to": 0, "end": 0.7}}}},
}
THEN_KD: dict[str, Any] = {
    "loss": {
        "kd": {"temperature": 4, "weight": {"from": 0, "to": 0.9, "start": 0.5, "end": 0.8}},
        "fitnet": {"weight": {"from": 30, "to": 0, "start": 0.5, "end": 0.8}},
    }
}
SECOND = "then-kd"
STUDENT = (("widths", (16, 32, 64)), ("depths", (3, 3, 3)))


def whole(options: argparse.Namespace, runs: Path) -> Setting:
    """All training images."""
    return Setting(
        tiny=options.tiny,
        train=None,
        validation=0.2 if options.tiny else 0.02,
        epochs=2 if options.tiny else 40,
        views=2 if options.tiny else 4,
        student=STUDENT,
        runs=runs,
    )


def short(options: argparse.Namespace, runs: Path) -> Setting:
    """Some of them, for fewer epochs."""
    return Setting(
        tiny=options.tiny,
        train=600 if options.tiny else 20_000,
        validation=0.2 if options.tiny else 0.1,
        epochs=1 if options.tiny else 10,
        views=1 if options.tiny else 4,
        student=STUDENT,
        runs=runs,
    )


def chosen(choices: Cells) -> str:
    """By validation."""
    found = {way: (choices.get(f"choice-{way}") or {"validation": 0.0})["validation"] for way in WAYS}
    return max(found, key=lambda way: found[way])


def printed(choices: Cells, cells: Cells) -> str:
    """The two, their teacher, and the share of the gap that is closed; before them what was tried."""
    tried = {way: choices.get(f"choice-{way}") for way in WAYS}
    shown = [[way, f"{100 * cell['validation']:.2f}"] for way, cell in tried.items() if cell]
    rows = [
        ["ResNet-56, the teacher", f"{100 * TEACHER:.2f}", "", ""],
        ["ResNet-20, its authors", f"{100 * AUTHORS:.2f}", "", ""],
    ]
    found = {name: cells.get(name) for name in ("alone", "distilled", SECOND)}
    alone = found["alone"]
    for cell in found.values():
        if cell:
            gained = cell["test"] - alone["test"] if alone and cell is not alone else None
            share = f"{100 * gained / (TEACHER - alone['test']):.0f} %" if gained else ""
            points = f"{100 * gained:+.2f}" if gained else ""
            rows.append([f"ResNet-20, {cell['way']}", f"{100 * cell['test']:.2f}", points, share])
    before = table(["short", "validation"], shown, "top-1 in %; the best is trained whole")
    after = table(["", "test", "points", "of the gap"], rows, "top-1 in %, points over the student alone")
    return f"{before}\n\n{after}"


def make(cells: Cells, name: str, setting: Setting, way: str, seed: int, precision: str) -> None:
    """One training."""
    begun = time.monotonic()

    def work() -> dict[str, Any]:
        last = not name.startswith("choice-")
        facts = trained(
            setting, {**WAYS, "alone": ALONE, SECOND: THEN_KD}[way], seed, precision, f"{name}-{way}", test=last
        )
        return {**facts, "way": way, "epochs": setting.epochs, "training_s": round(time.monotonic() - begun)}

    cells.cell(name, work)


def main() -> None:
    """Make what is missing, print the tables."""
    parser = arguments(__doc__, NAME)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, each on one thread")
    options = parser.parse_args()
    results, runs = folders(options, NAME)
    brief, full = short(options, runs), whole(options, runs)
    choices, cells = Cells(NAME, results, brief.identity()), Cells(NAME, results, full.identity())
    if not options.table:
        asked = [WAYS["fitnet"]]
        precision = choices.cell("choice-answers", lambda: prepared(brief, asked, options.seed))["precision"]
        trials = [(choices, f"choice-{way}", brief, way, options.seed, precision) for way in WAYS]
        in_parallel(options.jobs, make, [trial for trial in trials if not choices.get(trial[1])])
        precision = cells.cell("answers", lambda: prepared(full, asked, options.seed))["precision"]
        trainings = [("distilled", chosen(choices)), (SECOND, SECOND), ("alone", "alone")]
        todo = [(cells, name, full, way, options.seed, precision) for name, way in trainings if not cells.get(name)]
        in_parallel(options.jobs, make, todo)
    print(printed(choices, cells))


if __name__ == "__main__":
    main()
