"""The public yardstick: ResNet-20 on CIFAR-10, alone and distilled from ResNet-56, the same training otherwise.

Alone it has 91.73 % by the authors of these weights; ResNet-56 has 93.39 %. Both are trained here on the official
50,000 images less 1,000 that validate, by the same schedule, and scored on the official 10,000 after the last epoch.
How much of the gap between the student alone and its teacher is closed? The goal is 60 %.

A ResNet-20 of the family `resnet` has 1x1 convolutions as shortcuts (option B; theirs is option A) and 274,442
parameters, theirs 269,722.

Cells: `answers`, then `alone` and `distilled`, side by side, each on one thread. Run: EDGEKD_DATA=... python
benchmarks/resnet20.py [--table] [--jobs 2]. Two hours on two idle cores; --tiny takes a minute and proves nothing.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from cells import Cells, arguments, folders, table
from trainings import Setting, in_parallel, prepared, trained

NAME = "resnet20"
TEACHER, AUTHORS = 0.9339, 0.9173
ALONE: dict[str, Any] = {"loss": "ce"}
DISTILLED: dict[str, Any] = {"loss": {"kd": {"temperature": 4, "weight": 0.9}}}
TRAINED = {"alone": ALONE, "distilled": DISTILLED}


def setting(options: argparse.Namespace, runs: Path) -> Setting:
    """The whole training set."""
    return Setting(
        tiny=options.tiny,
        train=None,
        validation=0.2 if options.tiny else 0.02,
        epochs=2 if options.tiny else 56,
        views=2 if options.tiny else 8,
        student=(("widths", (16, 32, 64)), ("depths", (3, 3, 3))),
        runs=runs,
    )


def printed(cells: Cells) -> str:
    """The two, their teacher, and the share of the gap that is closed."""
    found = {name: cells.get(name) for name in TRAINED}
    rows = [
        ["ResNet-56, the teacher", f"{100 * TEACHER:.2f}", ""],
        ["ResNet-20, its authors", f"{100 * AUTHORS:.2f}", ""],
    ]
    rows += [
        [f"ResNet-20, {name}", f"{100 * cell['test']:.2f}", cell["epochs"]] for name, cell in found.items() if cell
    ]
    alone, distilled = found["alone"], found["distilled"]
    note = "test top-1 in %"
    if alone and distilled:
        gained = distilled["test"] - alone["test"]
        note += f"; {100 * gained:+.2f} points, {100 * gained / (TEACHER - alone['test']):.0f} % of the gap closed"
    return table(["", "test", "epochs"], rows, note)


def make(cells: Cells, name: str, chosen: Setting, seed: int) -> None:
    """One training."""
    precision = (cells.get("answers") or {})["precision"]
    begun = time.monotonic()

    def work() -> dict[str, Any]:
        facts = trained(chosen, TRAINED[name], seed, precision, name)
        return {**facts, "epochs": chosen.epochs, "training_s": round(time.monotonic() - begun)}

    cells.cell(name, work)


def main() -> None:
    """Make what is missing, print the table."""
    parser = arguments(__doc__, NAME)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, each on one thread")
    options = parser.parse_args()
    results, runs = folders(options, NAME)
    chosen = setting(options, runs)
    cells = Cells(NAME, results, chosen.identity())
    if not options.table:
        cells.cell("answers", lambda: prepared(chosen, [DISTILLED], options.seed))
        missing = [name for name in TRAINED if not cells.get(name)]
        in_parallel(options.jobs, make, [(cells, name, chosen, options.seed) for name in missing])
    print(printed(cells))


if __name__ == "__main__":
    main()
