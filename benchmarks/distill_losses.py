"""Which loss helps? CIFAR-10, 10,000 training images, one student, one teacher, every loss tuned alike.

Teacher: ResNet-56 (93.39 %), seen through `views` ways of seeing each image, cached once with the activations of its
three stages. Student: the family `resnet`, widths 16, 32, 64, one block a stage, a stem of stride 2 (78,042
parameters). 15 epochs, SGD, crop and flip. Validation: 5,000 other images; test: the official 10,000.

Every method, plain cross-entropy too, is tried with three settings and one seed; the setting with the best validation
accuracy goes on with three more seeds. The five best methods by the mean of their validation accuracy then get another
three, and so does cross-entropy. Test accuracy is looked at last, of those seeds alone. A method is compared with
cross-entropy seed by seed (the same seed is the same first weights and order of batches): paired t-test, all methods
together corrected by Holm (1979). Losses on inner activations stand beside plain cross-entropy, without `kd`, so that
each shows what it adds by itself.

Cells: `answers`, then `tune-METHOD-N`, then `METHOD-SEED`; two at a time, each on one thread. With --speed on an
idle machine, `speed`: images per second of `ce`, of `kd` with cached answers, and of `kd` with the teacher asked.

Run: EDGEKD_DATA=... python benchmarks/distill_losses.py [--table] [--jobs 2]. An hour on two idle cores; --tiny takes a
few minutes and proves nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cells, arguments, folders, table
from scipy import stats
from trainings import Setting, in_parallel, prepared, stage_of, started, trained

NAME = "distill_losses"
SEEDS, MORE_SEEDS, TUNING_SEED = (1, 2, 3), (4, 5, 6), 0
BASE = "ce"
STUDENT = (("widths", (16, 32, 64)), ("depths", (1, 1, 1)), ("stem_stride", (2,)))


def _weighted(name: str, weights: Sequence[float], **options: Any) -> list[dict[str, Any]]:
    """A loss on activations beside the whole cross-entropy, at three weights."""
    return [{"loss": {name: {"weight": weight, **options}}} for weight in weights]


METHODS: Mapping[str, list[dict[str, Any]]] = {
    "ce": [{"loss": "ce", "label_smoothing": smoothing} for smoothing in (0.0, 0.05, 0.1)],
    "kd": [{"loss": {"kd": {"temperature": t, "weight": 0.9}}} for t in (2, 4, 8)],
    "kd-other-views": [{"loss": {"kd": {"temperature": t, "weight": 0.9}}, "consistent": False} for t in (2, 4, 8)],
    "kd-standardized": [
        {"loss": {"kd": {"temperature": t, "weight": 3, "standardize": True}, "ce": {"weight": 0.1}}}
        for t in (0.5, 1, 2)
    ],
    "dkd": [{"loss": {"dkd": {"beta": beta}}} for beta in (1, 4, 8)],
    "dist": [{"loss": {"dist": {"temperature": t}}} for t in (1, 2, 4)],
    "mlkd": [{"loss": {"mlkd": {"weight": w}, "ce": {"weight": 0.1}}} for w in (0.3, 0.9, 2.7)],
    "fitnet": _weighted("fitnet", (0.3, 1, 3)),
    "attention": _weighted("attention", (300, 1000, 3000)),
    "similarity": _weighted("similarity", (300, 1000, 3000)),
    "rkd": _weighted("rkd", (0.3, 1, 3)),
    "crd": _weighted("crd", (0.3, 0.8, 2)),
    "reviewkd": _weighted("reviewkd", (0.3, 1, 3)),
    "simkd": _weighted("simkd", (1, 3, 10)),
    "adversarial": _weighted("adversarial", (0.01, 0.1, 1)),
}


def setting(options: argparse.Namespace, runs: Path) -> Setting:
    """10,000 images, 15 epochs."""
    return Setting(
        tiny=options.tiny,
        train=600 if options.tiny else 10_000,
        validation=0.1,
        epochs=2 if options.tiny else 15,
        views=2 if options.tiny else 5,
        student=STUDENT,
        runs=runs,
    )


def speeds(chosen: Setting, precision: str) -> dict[str, Any]:
    """Images per second with cached answers and with the teacher asked, on all cores, with nothing else running."""
    from edgekd.distill.curve import read_curve

    assert chosen.train is not None
    images, found = chosen.train, {name: list[float]() for name in ("ce", "kd", "online")}
    for number in range(3):
        for name in found if number % 2 else reversed(list(found)):
            way = METHODS["ce" if name == "ce" else "kd"][0]
            given = {**way, "precision": precision, "epochs": 2, "cache": name != "online"}
            _, student, context = started(chosen, TUNING_SEED)
            with tempfile.TemporaryDirectory(dir=chosen.runs) as scratch:
                context = replace(context, folder=Path(scratch))
                stage = stage_of(chosen, given)
                stage.prepare(context)
                begun = time.monotonic()
                stage.run(student, context)
                whole = 2 * images / (time.monotonic() - begun)
                found[name].append(max(whole, *(point.images_per_s for point in read_curve(context.folder))))
    fastest = {name: max(figures) for name, figures in found.items()}
    return {
        "images_per_s": found,
        "cached over online": fastest["kd"] / fastest["online"],
        "kd over ce": fastest["kd"] / fastest["ce"],
    }


def tuning_cell(method: str, number: int) -> str:
    """The cell of one setting."""
    return f"tune-{method}-{number}"


def best_setting(cells: Cells, method: str) -> int | None:
    """By validation, once all are done."""
    found = [cells.get(tuning_cell(method, number)) for number in range(len(METHODS[method]))]
    if not all(found):
        return None
    return int(np.argmax([cell["validation"] for cell in found if cell]))


def mean_of(cells: Cells, method: str, seeds: Sequence[int], key: str) -> float:
    """Over finished seeds."""
    found = [cells.get(f"{method}-{seed}") for seed in seeds]
    return float(np.mean([cell[key] for cell in found if cell]))


def best_five(cells: Cells) -> list[str]:
    """By validation over the first seeds; cross-entropy comes besides."""
    ranked = sorted((m for m in METHODS if m != BASE), key=lambda m: -mean_of(cells, m, SEEDS, "validation"))
    return [BASE, *ranked[:5]]


def due(cells: Cells) -> list[str]:
    """The cells to be made now: tuning, then seeds, then more seeds for the best."""
    tuning = [tuning_cell(method, number) for method in METHODS for number in range(len(METHODS[method]))]
    seeded = [f"{method}-{seed}" for method in METHODS for seed in SEEDS]
    missing = [cell for cell in tuning if not cells.get(cell)] or [cell for cell in seeded if not cells.get(cell)]
    if missing:
        return missing
    more = [f"{method}-{seed}" for method in best_five(cells) for seed in MORE_SEEDS]
    return [cell for cell in more if not cells.get(cell)]


def make(cells: Cells, cell: str, chosen: Setting) -> None:
    """One cell, in this process."""
    precision = (cells.get("answers") or {})["precision"]
    if cell.startswith("tune-"):
        method, number = cell.removeprefix("tune-").rsplit("-", 1)
        cells.cell(cell, lambda: trained(chosen, METHODS[method][int(number)], TUNING_SEED, precision))
        return
    method, seed = cell.rsplit("-", 1)
    best = best_setting(cells, method)
    if best is None:
        raise SystemExit(f"{method} is not tuned yet")
    cells.cell(cell, lambda: trained(chosen, METHODS[method][best], int(seed), precision))


def holm(values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p-values (1979)."""
    order, corrected, largest = np.argsort(values), [0.0] * len(values), 0.0
    for rank, at in enumerate(order):
        largest = max(largest, min(1.0, values[at] * (len(values) - rank)))
        corrected[int(at)] = largest
    return corrected


def printed(cells: Cells) -> str:
    """Mean, deviation, points over cross-entropy, corrected p."""
    seeds = {m: [s for s in (*SEEDS, *MORE_SEEDS) if cells.get(f"{m}-{s}")] for m in METHODS}
    done = [method for method in METHODS if len(seeds[method]) >= len(SEEDS)]
    if BASE not in done:
        return f"{sum(map(len, seeds.values()))} cells of seeds are finished, {BASE} is not among them"

    def scores(method: str, over: Sequence[int]) -> np.ndarray:
        return np.array([100 * (cells.get(f"{method}-{seed}") or {})["test"] for seed in over])

    compared = [method for method in done if method != BASE]
    gains = {m: scores(m, seeds[m]) - scores(BASE, [s for s in seeds[m] if s in seeds[BASE]]) for m in compared}
    pvalues = holm([float(stats.ttest_1samp(gains[method], 0.0).pvalue) for method in compared])
    rows = []
    for method in sorted(done, key=lambda m: -scores(m, seeds[m]).mean()):
        found, number = scores(method, seeds[method]), best_setting(cells, method)
        row = [method, len(found), f"{found.mean():.2f}", f"{found.std(ddof=1):.2f}"]
        if method == BASE:
            rows.append([*row, "", "", number])
        else:
            rows.append([*row, f"{gains[method].mean():+.2f}", f"{pvalues[compared.index(method)]:.4f}", number])
    note = "test top-1 in %, points over cross-entropy paired by seed, p of a paired t-test, Holm over all rows"
    return table(["method", "seeds", "mean", "dev", "points", "p", "setting"], rows, note)


def main() -> None:
    """Make what is missing, print the table."""
    parser = arguments(__doc__, NAME)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, each on one thread")
    parser.add_argument("--speed", action="store_true", help="time cached answers against an asked teacher too")
    options = parser.parse_args()
    results, runs = folders(options, NAME)
    chosen = setting(options, runs)
    cells = Cells(NAME, results, chosen.identity())
    if not options.table:
        asked = [METHODS[method][0] for method in ("fitnet", "crd", "kd-other-views")]
        cells.cell("answers", lambda: prepared(chosen, asked, TUNING_SEED))
        while waiting := due(cells):
            in_parallel(options.jobs, make, [(cells, cell, chosen) for cell in waiting])
    if options.speed:
        precision = (cells.get("answers") or {})["precision"]
        print(cells.cell("speed", lambda: speeds(chosen, precision))["images_per_s"])
    print(printed(cells))


if __name__ == "__main__":
    main()
