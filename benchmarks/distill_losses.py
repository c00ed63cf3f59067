"""Which loss helps? CIFAR-10, 10,000 training images, one student, one teacher, every loss tuned alike.

Teacher: ResNet-56 (93.39 %), seen through `views` ways of seeing each image, cached once with the activations of its
three stages. Student: the family `resnet`, widths 16, 32, 64, one block a stage, a stem of stride 2 (78,042
parameters). 15 epochs, SGD, crop and flip. Validation: 5,000 other images; test: the official 10,000.

Every method, plain cross-entropy too, is tried with three settings and one seed. While the best lies at the end of
what was tried, the next one beyond it is tried as well, as far as the list goes. The setting with the best validation
accuracy goes on with three more seeds. The five best methods by the mean of their validation accuracy then get
another three, and so does cross-entropy. Nothing is chosen by test accuracy. A method is compared with cross-entropy
by a t-test whose variance is pooled over all methods (three pairs of one method alone find a gain of 3 points in one
case of ten), all methods together corrected by Holm (1979). The learning rate is the default of `distill` for all,
and was not tuned; --rates trains cross-entropy at others, for what that is worth. Losses on inner activations stand
beside plain cross-entropy, without `kd`, so that each shows what it adds by itself; `kd-and-fitnet` is the pair. A
teacher whose answers belong to other views of a sample than the student's (`-other-views`) is compared with one that
sees what the student sees, over six seeds: under crops by 4 pixels as everything else, and under random resized
crops, of which two may have no pixel in common.

Cells: `answers`, `answers-crops`, then `tune-METHOD-N`, then `METHOD-SEED`; two at a time, each on one thread. With
--speed on an idle machine, `speed`: images per second of each method with cached answers, and of `kd` with the teacher
asked.

Run: EDGEKD_DATA=... python benchmarks/distill_losses.py [--table] [--jobs 2]. An hour on two idle cores; --tiny takes a
few minutes and proves nothing.
"""

from __future__ import annotations

import argparse
import tempfile
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
BASE, ONLINE = "ce", "kd, teacher asked"
STUDENT = (("widths", (16, 32, 64)), ("depths", (1, 1, 1)), ("stem_stride", (2,)))


def _weighted(name: str, *weights: float) -> list[dict[str, Any]]:
    """A loss on activations beside the whole cross-entropy."""
    return [{"loss": {name: {"weight": weight}}} for weight in weights]


HEAT = (1, 2, 4, 8, 16)
CROPS = {"augment": {"resized_crop": True, "flip": True}}
STANDARDIZED = {"weight": 3, "standardize": True}
METHODS: Mapping[str, list[dict[str, Any]]] = {
    "ce": [{"loss": "ce", "label_smoothing": smoothing} for smoothing in (0.0, 0.05, 0.1, 0.2)],
    "kd": [{"loss": {"kd": {"temperature": t, "weight": 0.9}}} for t in HEAT],
    "kd-other-views": [{"loss": {"kd": {"temperature": t, "weight": 0.9}}, "consistent": False} for t in HEAT],
    "kd-standardized": [
        {"loss": {"ce": {"weight": 0.1}, "kd": {"temperature": t, **STANDARDIZED}}} for t in (0.25, 0.5, 1, 2, 4, 8, 16)
    ],
    "dkd": [{"loss": {"dkd": {"beta": beta}}} for beta in (0.125, 0.25, 0.5, 1, 4, 8, 16)],
    "dist": [{"loss": {"dist": {"temperature": t}}} for t in (0.5, 1, 2, 4, 8, 16, 32)],
    "mlkd": [{"loss": {"ce": {"weight": 0.1}, "mlkd": {"weight": w}}} for w in (0.01, 0.03, 0.1, 0.3, 0.9, 2.7, 8)],
    "fitnet": _weighted("fitnet", 0.1, 0.3, 1, 3, 10, 30, 100),
    "attention": _weighted("attention", 3, 10, 30, 100, 300, 1000, 3000),
    "similarity": _weighted("similarity", 30, 100, 300, 1000, 3000),
    "rkd": _weighted("rkd", 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
    "crd": _weighted("crd", 0.01, 0.03, 0.1, 0.3, 0.8, 2, 5),
    "reviewkd": _weighted("reviewkd", 0.1, 0.3, 1, 3, 10, 30, 100),
    "simkd": _weighted("simkd", 0.3, 1, 3, 10, 30, 100, 300),
    "kd-and-fitnet": [
        {"loss": {"kd": {"temperature": 8, "weight": 0.9}, "fitnet": {"weight": w}}} for w in (1, 3, 10, 30, 100)
    ],
    "adversarial": _weighted("adversarial", 0.001, 0.01, 0.1, 1, 10),
    "kd-crops": [{"loss": {"kd": {"temperature": t, "weight": 0.9}}, **CROPS} for t in HEAT],
    "kd-crops-other-views": [
        {"loss": {"kd": {"temperature": t, "weight": 0.9}}, "consistent": False, **CROPS} for t in HEAT
    ],
}
VIEWS = {"kd": "kd-other-views", "kd-crops": "kd-crops-other-views"}  # the teacher sees the same pixels: others
RATES = (0.1, 0.3, 1.0)
CROPPED = ("kd-crops", "kd-crops-other-views")  # not comparable with cross-entropy, which learns from other views
FIRST = 3  # settings, from the middle of the list


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
    """Images per second of every method with cached answers, and of `kd` with the teacher asked.

    On all cores, with nothing else running; two epochs each, the best of three interleaved rounds.
    """
    from edgekd.distill.curve import read_curve

    assert chosen.train is not None
    ways = {**{method: grid[0] for method, grid in METHODS.items()}, ONLINE: {**METHODS["kd"][0], "cache": False}}
    found = {name: list[float]() for name in ways}
    for number in range(3):
        for name in ways if number % 2 else reversed(list(ways)):
            _, student, context = started(chosen, TUNING_SEED)
            with tempfile.TemporaryDirectory(dir=chosen.runs) as scratch:
                context = replace(context, folder=Path(scratch))
                stage = stage_of(chosen, {**ways[name], "precision": precision, "epochs": 2})
                stage.prepare(context)
                stage.run(student, context)
                found[name].append(max(point.images_per_s for point in read_curve(context.folder)))
    fastest = {name: round(max(figures)) for name, figures in found.items()}
    return {
        "images_per_s": fastest,
        "all": found,
        "cached over online": fastest["kd"] / fastest[ONLINE],
        "over ce": {name: fastest[name] / fastest[BASE] for name in ("kd", "dkd", "dist")},
        "over kd": {name: fastest[name] / fastest["kd"] for name in METHODS},
    }


def tuning_cell(method: str, number: int) -> str:
    """The cell of one setting."""
    return f"tune-{method}-{number}"


def tuning(cells: Cells, method: str) -> list[int]:
    """The settings to be tried now: those in the middle, then the next beyond the best while it is at an end."""
    grid = METHODS[method]
    start = (len(grid) - FIRST) // 2
    tried = [number for number in range(len(grid)) if cells.get(tuning_cell(method, number))]
    missing = [number for number in range(start, start + FIRST) if number not in tried]
    if missing:
        return missing
    best = best_setting(cells, method)
    beyond = {best - 1} if best == min(tried) else {best + 1} if best == max(tried) else set()
    return [number for number in beyond if 0 <= number < len(grid)]


def best_setting(cells: Cells, method: str) -> int:
    """By validation, of those tried."""
    found = {number: cells.get(tuning_cell(method, number)) for number in range(len(METHODS[method]))}
    scores = {number: cell["validation"] for number, cell in found.items() if cell}
    return max(scores, key=lambda number: scores[number])


def mean_of(cells: Cells, method: str, seeds: Sequence[int], key: str) -> float:
    """Over finished seeds."""
    found = [cells.get(f"{method}-{seed}") for seed in seeds]
    return float(np.mean([cell[key] for cell in found if cell]))


def best_five(cells: Cells) -> list[str]:
    """By validation over the first seeds; cross-entropy comes besides."""
    ranked = sorted(
        (m for m in METHODS if m not in (BASE, *CROPPED)), key=lambda m: -mean_of(cells, m, SEEDS, "validation")
    )
    return [BASE, *ranked[:5]]


def due(cells: Cells) -> list[str]:
    """The cells to be made now: tuning, then seeds, then more seeds for the best."""
    untuned = [tuning_cell(method, number) for method in METHODS for number in tuning(cells, method)]
    if untuned:
        return untuned
    missing = [f"{method}-{seed}" for method in METHODS for seed in SEEDS if not cells.get(f"{method}-{seed}")]
    if missing:
        return missing
    longer = dict.fromkeys([*best_five(cells), *VIEWS, *VIEWS.values()])
    more = [f"{method}-{seed}" for method in longer for seed in MORE_SEEDS]
    return [cell for cell in more if not cells.get(cell)]


def make(cells: Cells, cell: str, chosen: Setting) -> None:
    """One cell, in this process."""
    precision = (cells.get("answers") or {})["precision"]
    if cell.startswith("tune-"):
        method, number = cell.removeprefix("tune-").rsplit("-", 1)
        cells.cell(cell, lambda: tried(chosen, METHODS[method][int(number)], precision))
        return
    method, seed = cell.rsplit("-", 1)
    best = METHODS[method][best_setting(cells, method)]
    cells.cell(cell, lambda: trained(chosen, best, int(seed), precision))


def at_rate(cells: Cells, rate: float, seed: int, chosen: Setting) -> None:
    """Cross-entropy at a learning rate, in this process."""
    given = {**METHODS[BASE][best_setting(cells, BASE)], "learning_rate": rate}
    precision = (cells.get("answers") or {})["precision"]
    cells.cell(f"rate-{rate:g}-{seed}", lambda: trained(chosen, given, seed, precision))


def tried(chosen: Setting, given: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """One training of the tuning. A setting that no student survives is the worst of all, and no reason to stop."""
    from edgekd.errors import Diverged

    try:
        return trained(chosen, given, TUNING_SEED, precision, test=False)
    except Diverged as error:
        return {"given": given, "seed": TUNING_SEED, "validation": 0.0, "diverged": error.message}


def setting_text(given: Mapping[str, Any]) -> str:
    """What was tuned, and to what."""
    if given["loss"] == BASE:
        return f"smoothing {given['label_smoothing']}"
    options = list(given["loss"].values())[-1]
    name = next(name for name in ("beta", "temperature", "weight") if name in options)
    return f"{name} {options[name]}"


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

    compared = [method for method in done if method not in (BASE, *CROPPED)]
    known = {method: scores(method, seeds[method]) for method in (BASE, *compared)}
    freedom = sum(len(found) - 1 for found in known.values())
    spread = float(np.sqrt(sum(((found - found.mean()) ** 2).sum() for found in known.values()) / freedom))
    gains = {method: float(known[method].mean() - known[BASE].mean()) for method in compared}
    errors = {m: spread * float(np.sqrt(1 / len(known[m]) + 1 / len(known[BASE]))) for m in compared}
    pvalues = holm([float(2 * stats.t.sf(abs(gains[m]) / errors[m], freedom)) for m in compared])
    speed = (cells.get("speed") or {}).get("images_per_s", {})
    rows = []
    for method in sorted(done, key=lambda m: -scores(m, seeds[m]).mean()):
        found = scores(method, seeds[method])
        compare = ["", ""]
        if method in compared:
            compare = [f"{gains[method]:+.2f}", f"{pvalues[compared.index(method)]:.4f}"]
        setting_of = setting_text(METHODS[method][best_setting(cells, method)])
        figures = [len(found), f"{found.mean():.2f}", f"{found.std(ddof=1):.2f}", *compare, speed.get(method, "")]
        rows.append([method, *figures, setting_of])
    note = "test top-1 in %, points over cross-entropy's mean, p of a t-test with one spread for all methods\n"
    note += f"({spread:.2f} points, {freedom} degrees of freedom), Holm over all rows"
    for same, other in VIEWS.items():
        if {same, other} <= set(done):
            both = [seed for seed in seeds[same] if seed in seeds[other]]
            gained = scores(same, both) - scores(other, both)
            pvalue = float(stats.ttest_1samp(gained, 0.0).pvalue)
            note += f"\n{same} over {other}: {gained.mean():+.2f} points by {len(both)} pairs, p {pvalue:.4f}"
    for rate in RATES:
        found = [cell for seed in SEEDS if (cell := cells.get(f"rate-{rate:g}-{seed}"))]
        if found:
            test, validation = (100 * np.mean([cell[key] for cell in found]) for key in ("test", "validation"))
            note += f"\nce at a learning rate of {rate:g}: {test:.2f}, validation {validation:.2f}, {len(found)} seeds"
    if ONLINE in speed:
        note += f"\nimages/s with cached answers; kd with the teacher asked: {speed[ONLINE]}"
    return table(["method", "seeds", "mean", "dev", "points", "p", "images/s", "setting"], rows, note)


def main() -> None:
    """Make what is missing, print the table."""
    parser = arguments(__doc__, NAME)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, each on one thread")
    parser.add_argument("--rates", action="store_true", help="train cross-entropy at other learning rates too")
    parser.add_argument("--speed", action="store_true", help="time every method too, and a teacher that is asked")
    options = parser.parse_args()
    results, runs = folders(options, NAME)
    chosen = setting(options, runs)
    cells = Cells(NAME, results, chosen.identity())
    if not options.table:
        asked = [METHODS[method][0] for method in ("fitnet", "crd", "kd-other-views")]
        cells.cell("answers", lambda: prepared(chosen, asked, TUNING_SEED))
        cells.cell("answers-crops", lambda: prepared(chosen, [METHODS[name][0] for name in CROPPED], TUNING_SEED))
        while waiting := due(cells):
            in_parallel(options.jobs, make, [(cells, cell, chosen) for cell in waiting])
    if options.rates:
        wanted = [(rate, seed) for seed in SEEDS for rate in RATES if not cells.get(f"rate-{rate:g}-{seed}")]
        in_parallel(options.jobs, at_rate, [(cells, rate, seed, chosen) for rate, seed in wanted])
    if options.speed:
        precision = (cells.get("answers") or {})["precision"]
        print(cells.cell("speed", lambda: speeds(chosen, precision))["images_per_s"])
    print(printed(cells))


if __name__ == "__main__":
    main()
