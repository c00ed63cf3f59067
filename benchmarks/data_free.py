"""Distillation without any training image (stage `data-free`), beside the same with all of them (stage `distill`).

Cells: `digits` and `cifar10`, a student from its teacher alone; `digits_with_data` and `cifar10_with_data`, the same
student from the same teacher and the training images, for as many steps. Goals: 90 % of the digits and 45 % of
CIFAR-10's test images without data, the latter within 120 minutes on two cores.

Digits: the teacher is a ResNet of widths 32, 64, 128 trained here on the training split; the student has 16, 32, 64.
CIFAR-10: the teacher is the pretrained ResNet-20 (91.73 %), the student a ResNet-8. A student without data gets a task
that raises where the training split is asked for; the input's mean and deviation are the teacher's own. Validation
images draw the curve (accuracy against seconds) and decide nothing; the accuracy of a cell is of all test images.

A cell that is stopped goes on where it was. What the generator drew last is kept as RUNS/CELL/pictures.png.

Run: EDGEKD_DATA=... python benchmarks/data_free.py [--only cifar10] [--table]. Two hours and a half on one thread each,
of which `cifar10` takes about 105 minutes and `cifar10_with_data` 40; --tiny takes two minutes and proves nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cells import ROOT, Cells, arguments, cifar10, data_folder, folders, table

from edgekd.distill.curve import read_curve
from edgekd.distill.generative.data_free import DataFree
from edgekd.distill.predict import predict
from edgekd.distill.stage import Distill
from edgekd.events import StageProgress
from edgekd.ir.space import Arch
from edgekd.recipes.teach import TrainedTeacher
from edgekd.stages import Stage, StageContext
from edgekd.students._protocol import Student
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.tasks._protocol import Split, SplitName, Task, TaskSpec
from edgekd.tasks.digits import Digits
from edgekd.tasks.images.classification import ImageClassification
from edgekd.teachers._protocol import Teacher
from edgekd.teachers.torch import TorchTeacher

NAME = "data_free"
CELLS = ("digits", "digits_with_data", "cifar10", "cifar10_with_data")
GOALS = {"digits": 0.90, "cifar10": 0.45}
WIDTHS, DEPTHS = (16, 32, 64), (1, 1, 1)
MEAN, STD = [255 * 0.485, 255 * 0.456, 255 * 0.406], [255 * 0.229, 255 * 0.224, 255 * 0.225]  # of the teacher
LOSS = {"kd": {"weight": 1.0, "temperature": 4}}
REPORT_EVERY_S = 30.0


@dataclass(frozen=True)
class Withheld:
    """A task whose training images nobody may see."""

    task: Task

    @property
    def spec(self) -> TaskSpec:
        return self.task.spec

    def split(self, name: SplitName) -> Split:
        if name == "train":
            raise RuntimeError("a training image was asked for")
        return self.task.split(name)

    def score(self, outputs: Any, labels: Any) -> Any:
        return self.task.score(outputs, labels)


def digits(tiny: bool, runs: Path) -> tuple[Task, Teacher]:
    """The task, and a teacher trained on its training split (once: it is kept among the runs)."""
    task = Digits()
    return task, TrainedTeacher(width=8 if tiny else 32, epochs=2 if tiny else 20).prepare(task, runs / "cache")


def cifar(tiny: bool) -> tuple[Task, Teacher]:
    """The task as its teacher was taught it, and the teacher."""
    few: dict[str, Any] = {"validation": 0.2, "calibration": 64} if tiny else {"validation": 0.08}
    task = ImageClassification.model_validate(
        {"data": str(cifar10(tiny)), "flip": True, "mean": MEAN, "std": STD, **few}
    )
    model = f"{ROOT / 'examples' / 'cifar_resnet.py'}:resnet20"
    weights = str(data_folder() / "cifar-resnets" / "resnet20.npz")
    teacher = TorchTeacher.model_validate({"module": model, "weights": weights, "mean": MEAN, "std": STD})
    teacher.logits(torch.zeros((1, 3, 32, 32)))  # now it knows its classes
    return task, teacher


def stages(cell: str, tiny: bool, samples: int) -> tuple[DataFree, Stage]:
    """Without data, and with data for as many of the student's steps."""
    if cell.startswith("digits"):
        free = DataFree(epochs=2 if tiny else 40, rounds=4 if tiny else 15, batch_size=64)
    else:
        free = DataFree(epochs=2 if tiny else 100, rounds=2 if tiny else 40, batch_size=32 if tiny else 128)
    images = free.epochs * free.rounds * free.student_steps * free.batch_size
    epochs = max(1, round(images / samples))
    return free, Distill.model_validate({"loss": LOSS, "epochs": epochs, "batch_size": free.batch_size})


def measure(cell: str, options: argparse.Namespace, runs: Path) -> dict[str, Any]:
    """One student trained and scored on all test images."""
    task, teacher = digits(options.tiny, runs) if cell.startswith("digits") else cifar(options.tiny)
    samples = len(task.split("train"))
    free, taught = stages(cell, options.tiny, samples)
    with_data = cell.endswith("with_data")
    stage = taught if with_data else free
    context = StageContext(
        task=task if with_data else Withheld(task),
        teacher=teacher,
        device=None,
        backend=None,
        folder=runs / cell,
        cache=runs / "cache",
        seed=options.seed,
        progress=reporter(cell),
        stop=lambda: False,
    )
    begun = time.monotonic()
    trained = stage.run(untrained(task.spec, options.seed), context)
    seconds = time.monotonic() - begun
    test = task.split("test")
    counted = samples if with_data else free.rounds * free.student_steps * free.batch_size
    return {
        "accuracy": task.score(predict(trained.module, test.inputs, task.spec), test.labels).value,
        "teacher_accuracy": task.score(answers(teacher, test), test.labels).value,
        "test_images": len(test),
        "train_images_read": samples if with_data else 0,
        "train_seconds": round(seconds, 1),  # of this call: less than all where it went on from a checkpoint
        "curve": curve(runs / cell, counted),
        "stage": {stage.name: stage.model_dump(mode="json")},  # type: ignore[attr-defined]
        "threads": torch.get_num_threads(),
    }


def untrained(spec: TaskSpec, seed: int) -> Student:
    """A ResNet-8 for this task."""
    family = ResNet.model_validate({"space": {"widths": WIDTHS, "depths": DEPTHS}})
    choices = {f"width{at}": width for at, width in enumerate(WIDTHS, 1)}
    return new_student(
        family, Arch.of(choices | {f"depth{at}": depth for at, depth in enumerate(DEPTHS, 1)}), spec, seed
    )


def answers(teacher: Teacher, split: Split) -> Any:
    """The teacher's logits for a whole split."""
    blocks = [torch.from_numpy(split.inputs[at : at + 256]).float() for at in range(0, len(split), 256)]
    return torch.cat([teacher.logits(block) for block in blocks]).numpy()


def curve(folder: Path, images: int) -> list[tuple[float, float]]:
    """Seconds of training (validation and the generator with them) and validation accuracy, where it was looked at."""
    seconds, points = 0.0, []
    for point in read_curve(folder):
        seconds += images / point.images_per_s
        if point.validation is not None:
            points.append((round(seconds, 1), round(point.validation, 4)))
    return points


def reporter(cell: str) -> Callable[[StageProgress], None]:
    """Says now and then on stderr where the training is."""
    last = time.monotonic()

    def report(at: StageProgress) -> None:
        nonlocal last
        if time.monotonic() - last > REPORT_EVERY_S:
            last = time.monotonic()
            print(f"{cell}: {at.done:,} of {at.total:,}, {at.note}", file=sys.stderr, flush=True)

    return report


def printed(cells: Cells) -> str:
    """What is known so far."""
    found = cells.all()
    rows = []
    for name in CELLS:
        if name not in found:
            continue
        cell = found[name]
        goal = GOALS.get(name)
        reached = next((at for at, value in cell["curve"] if goal is not None and value >= goal), None)
        rows.append(
            (
                name,
                f"{cell['train_images_read']:,}",
                f"{cell['accuracy']:.2%}",
                f"{cell['teacher_accuracy']:.2%}",
                "" if goal is None else f"{goal:.0%}",
                "" if reached is None else f"{reached / 60:.1f}",
                f"{cell['curve'][-1][0] / 60:.1f}",
            )
        )
    head = ("cell", "images read", "test", "teacher", "goal", "at min", "min in all")
    return table(head, rows, "at min: when the validation images first said so") if rows else "nothing measured yet"


def main() -> None:
    parser = arguments(__doc__, NAME)
    parser.add_argument("--only", choices=CELLS, action="append", help="this cell")
    options = parser.parse_args()
    results, runs = folders(options, NAME)
    cells = Cells(NAME, results, {"tiny": options.tiny, "seed": options.seed})
    if not options.table:
        for name in options.only or CELLS:
            cells.cell(name, lambda name=name: measure(name, options, runs))
    print(printed(cells))


if __name__ == "__main__":
    main()
