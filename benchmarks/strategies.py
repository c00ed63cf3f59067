"""What do views, other teachers and other ways to train add to plain distillation? CIFAR-10, 10,000 training images.

Setting and teacher are those of `distill_losses.py`, with a student of two blocks a stage (175,258 parameters) so that
there is something to grow. Everything is beside `kd` at the temperature that was best there, and nothing but the row's
own options differs. They are the defaults or the obvious choice, and not tuned. Three seeds; paired t-test, Holm.

    labels            cross-entropy alone
    kd                ResNet-56's answers, crop and flip
    kd, ...           further views of the images
    taught by ...     ResNet-20 (91.73 %) instead; both, each sample's surer one counting more; an assistant between
                      ResNet-56 and the student, of width 32, trained by `kd`
    layerwise, kd     two epochs for each of three blocks, against the teacher's maps, then nine of `kd`
    grow              seven epochs of one block a stage, then seven of two, with `kd`
    born-again        fifteen epochs by ResNet-56, then fifteen afresh by the student that came of it
    mutual            two students with fresh weights, `kd` and each other's answers
    fitnet            the teacher's maps, at the weight that was best there; fitnet, then kd: eight epochs and seven

CPU seconds are a training's own, on one thread, without what the teacher had to say.

Cells: `answers`, then `METHOD-SEED`, two at a time. Run: EDGEKD_DATA=... python benchmarks/strategies.py [--table]
[--jobs 2]. An hour on two idle cores; --tiny takes a few minutes and proves nothing.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import distill_losses
import numpy as np
from cells import Cells, arguments, data_folder, folders, table
from cifar_search import teacher as resnet56
from scipy import stats
from trainings import Setting, in_parallel, prepared, scores, started

NAME = "strategies"
SEEDS, BASE, EPOCHS = (1, 2, 3), "kd", 15
KD = {"loss": {"kd": {"temperature": 8, "weight": 0.9}}}
FITNET = {"loss": {"fitnet": {"weight": 30}}}


def views(**further: Any) -> dict[str, Any]:
    """Crop and flip, and more."""
    return {"augment": {"crop": 4, "flip": True, **further}}


def other_teacher(name: str) -> dict[str, Any]:
    """As a project file would say."""
    weights = str(data_folder() / "cifar-resnets" / "resnet20.npz")
    resnet20 = {**resnet56(), "module": resnet56()["module"].replace("resnet56", "resnet20"), "weights": weights}
    return {
        "resnet20": resnet20,
        "both": {"kind": "ensemble", "weighting": "confidence", "members": [resnet20, resnet56()]},
        "assistant": {"kind": "train", "width": 32, "depth": 1, "epochs": EPOCHS, "teacher": resnet56()},
    }[name]


@dataclass(frozen=True)
class Method:
    """Stages, each with its options, and the teacher where it is another one."""

    stages: tuple[tuple[str, Mapping[str, Any]], ...]
    teacher: str = ""


def distilled(*stages: Mapping[str, Any], teacher: str = "") -> Method:
    """By the stage `distill` alone."""
    return Method(tuple(("distill", options) for options in stages), teacher)


METHODS: Mapping[str, Method] = {
    "labels": distilled({"loss": "ce"}),
    "kd": distilled(KD),
    "kd, randaugment": distilled({**KD, **views(randaugment=True)}),
    "kd, mixup": distilled({**KD, **views(mixup=True)}),
    "kd, cutmix": distilled({**KD, **views(cutmix=True)}),
    "kd, erase": distilled({**KD, **views(erase=True)}),
    "kd, colour": distilled({**KD, **views(colour={"brightness": 0.4, "contrast": 0.4, "saturation": 0.4})}),
    "taught by resnet20": distilled(KD, teacher="resnet20"),
    "taught by both": distilled(KD, teacher="both"),
    "taught by assistant": distilled(KD, teacher="assistant"),
    "layerwise, kd": Method((("layerwise", {"epochs": 2}), ("distill", {**KD, "epochs": 9}))),
    "grow": Method((("grow", {**KD, "epochs": 7}),)),
    "born-again": Method((("born-again", KD),)),
    "mutual": Method((("mutual", KD),)),
    "fitnet": distilled(FITNET),
    "fitnet, then kd": distilled({**FITNET, "epochs": 8}, {**KD, "epochs": 7}),
}


def answered(chosen: Setting, seed: int) -> dict[str, Any]:
    """What ResNet-56 has to say, the assistant trained, and the precision of all trainings."""
    facts = prepared(chosen, [KD, FITNET], seed)
    begun = time.monotonic()
    taught(chosen, "assistant")
    return {**facts, "assistant_s": round(time.monotonic() - begun)}


def taught(chosen: Setting, name: str) -> Any:
    """Another teacher, ready to be asked."""
    from edgekd.teachers.binding import bind
    from edgekd.teachers.nested import made_teacher, prepared_teacher

    task, _, context = started(chosen, 0)
    teacher = made_teacher(other_teacher(name), {"folder": chosen.runs})
    return bind(prepared_teacher(teacher, task, context.cache, lambda _: None, lambda: False), task.spec)


def trained(chosen: Setting, method: str, seed: int, precision: str) -> dict[str, Any]:
    """One student by all stages of a row, scored on validation and test."""
    from edgekd import plugins
    from edgekd.recipes.runner import run_recipe

    task, student, context = started(chosen, seed)
    shared = {"epochs": chosen.epochs, "views": chosen.views, "precision": precision, **views()}
    row = METHODS[method]
    if row.teacher:
        context = replace(context, teacher=taught(chosen, row.teacher))
    stages = []
    for name, options in row.stages:
        fewer = {"epochs": min(chosen.epochs, options.get("epochs", chosen.epochs))}
        stages.append(plugins.load("edgekd.stages", name).model_validate({**shared, **options, **fewer}))
        stages[-1].prepare(context)
    begun = time.process_time()
    with tempfile.TemporaryDirectory(dir=chosen.runs) as scratch:
        result = run_recipe(stages, student, replace(context, folder=Path(scratch)), Path(scratch) / "students")
    used = time.process_time() - begun
    return {"seed": seed, **scores(task, result.student), "cpu_s": round(used, 1)}


def cell_of(method: str, seed: int) -> str:
    """A file's name."""
    return f"{method.replace(', ', '-').replace(' ', '-')}-{seed}"


def make(cells: Cells, method: str, chosen: Setting, seed: int) -> None:
    """One cell, in this process."""
    precision = (cells.get("answers") or {})["precision"]
    cells.cell(cell_of(method, seed), lambda: trained(chosen, method, seed, precision))


def printed(cells: Cells) -> str:
    """Mean, deviation, points over `kd`, corrected p."""
    found = {method: [cells.get(cell_of(method, seed)) for seed in SEEDS] for method in METHODS}
    done = {method: [cell for cell in row if cell] for method, row in found.items() if all(row)}
    if BASE not in done:
        return f"{len(done)} rows are finished, `{BASE}` is not among them"
    tests = {method: np.array([100 * cell["test"] for cell in row]) for method, row in done.items()}
    compared = [method for method in done if method != BASE]
    pvalues = distill_losses.holm([float(stats.ttest_1samp(tests[m] - tests[BASE], 0.0).pvalue) for m in compared])
    rows = []
    for method in sorted(done, key=lambda m: -tests[m].mean()):
        own = tests[method]
        beside = ["", ""]
        if method != BASE:
            beside = [f"{(own - tests[BASE]).mean():+.2f}", f"{pvalues[compared.index(method)]:.4f}"]
        used = np.mean([cell["cpu_s"] for cell in done[method]])
        rows.append([method, f"{own.mean():.2f}", f"{own.std(ddof=1):.2f}", *beside, f"{used:.0f}"])
    note = (
        f"test top-1 in %, {len(SEEDS)} seeds; points over `{BASE}` paired by seed, p of a paired t-test, Holm over all"
    )
    return table(["", "mean", "dev", "points", "p", "CPU s"], rows, note)


def main() -> None:
    """Make what is missing, print the table."""
    parser = arguments(__doc__, NAME)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, each on one thread")
    options = parser.parse_args()
    results, runs = folders(options, NAME)
    student = (("widths", (16, 32, 64)), ("depths", (2, 2, 2)), ("stem_stride", (2,)))
    chosen = replace(distill_losses.setting(options, runs), student=student)
    cells = Cells(NAME, results, chosen.identity())
    if not options.table:
        cells.cell("answers", lambda: answered(chosen, options.seed))
        missing = [(m, seed) for seed in SEEDS for m in METHODS if not cells.get(cell_of(m, seed))]
        in_parallel(options.jobs, make, [(cells, method, chosen, seed) for method, seed in missing])
    print(printed(cells))


if __name__ == "__main__":
    main()
