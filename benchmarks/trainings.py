"""What the benchmarks that train on CIFAR-10 share: one setting, ResNet-56's answers to it, trainings side by side."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from cells import cifar10
from cifar_search import teacher as teacher_options

__all__ = ["Setting", "in_parallel", "prepared", "scores", "stage_of", "started", "trained"]


@dataclass(frozen=True)
class Setting:
    """What changes results, and where the runs are kept."""

    tiny: bool
    train: int | None  # training images; None: all
    validation: float  # share of the official training images
    epochs: int
    views: int
    student: tuple[tuple[str, tuple[int, ...]], ...]  # the family resnet's space: one arch
    runs: Path

    def identity(self) -> dict[str, Any]:
        """What a cell is bound to."""
        known = {name: value for name, value in asdict(self).items() if name != "runs"}
        return {**known, "student": {name: list(values) for name, values in self.student}}


@cache
def task_and_teacher(tiny: bool, limit: int | None, validation: float, runs: Path) -> tuple[Any, Any]:
    """Task and teacher, read once a process."""
    from edgekd.tasks.images.classification import ImageClassification
    from edgekd.teachers.binding import bind
    from edgekd.teachers.torch import TorchTeacher

    data = {"data": str(cifar10(tiny)), "flip": True, "calibration": 64, "train_limit": limit}
    task = ImageClassification.model_validate({**data, "validation": validation}, context={"folder": runs})
    described = {key: value for key, value in teacher_options().items() if key != "kind"}
    return task, bind(TorchTeacher.model_validate(described, context={"folder": runs}), task.spec)


def started(setting: Setting, seed: int) -> tuple[Any, Any, Any]:
    """Task, student with fresh weights, and context of one training."""
    from edgekd.stages import StageContext
    from edgekd.students.resnet import ResNet
    from edgekd.students.student import new_student

    task, teacher = task_and_teacher(setting.tiny, setting.train, setting.validation, setting.runs)
    family = ResNet.model_validate({"space": {name: list(values) for name, values in setting.student}})
    student = new_student(family, family.space(task.spec).at(0), task.spec, seed)
    context = StageContext(
        task=task,
        teacher=teacher,
        device=None,
        backend=None,
        folder=setting.runs / "scratch",
        cache=setting.runs / "cache",
        seed=seed,
        progress=lambda _: None,
        stop=lambda: False,
    )
    return task, student, context


def stage_of(setting: Setting, given: Mapping[str, Any]) -> Any:
    """The `distill` stage of one way to train."""
    from edgekd.distill.stage import Distill

    shared = {"epochs": setting.epochs, "views": setting.views, "augment": {"crop": 4, "flip": True}}
    return Distill.model_validate({**shared, **given})


def prepared(setting: Setting, ways: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    """Everything the teacher has to say, answered; and the precision that trains fastest here."""
    import torch

    from edgekd.distill.autotune import probe

    _, student, context = started(setting, seed)
    begun = time.monotonic()
    for given in ways:
        stage_of(setting, given).prepare(context)
    kept = sum(path.stat().st_size for path in context.cache.glob("*.f*"))
    # chosen once, with nothing else running: a training beside another one might choose otherwise
    precision = probe(student.module, context.task.spec.input, 128, torch.device("cpu")).precision
    return {"size_bytes": kept, "answering_s": round(time.monotonic() - begun, 1), "precision": precision}


def trained(
    setting: Setting, given: Mapping[str, Any], seed: int, precision: str, name: str = "", test: bool = True
) -> dict[str, Any]:
    """One training, scored on validation and, with ``test``, on test. One with a name goes on where it was cut off."""
    from edgekd.distill.curve import read_curve

    task, student, context = started(setting, seed)
    with tempfile.TemporaryDirectory(dir=setting.runs) as scratch:
        context = replace(context, folder=setting.runs / name if name else Path(scratch))
        ready = stage_of(setting, {**given, "precision": precision}).run(student, context)
        curve = read_curve(context.folder)
    speeds = sorted(point.images_per_s for point in curve)
    beside = round(speeds[len(speeds) // 2])
    return {"given": given, "seed": seed, **scores(task, ready, test), "images_per_s_beside_others": beside}


def scores(task: Any, student: Any, test: bool = True) -> dict[str, float]:
    """Of a trained student, on validation and, unless something is to be chosen by it, on test."""
    from edgekd.distill.predict import predict

    found = {}
    for name in ("validation", "test") if test else ("validation",):
        split = task.split(name)
        found[name] = task.score(predict(student.module, split.inputs, task.spec), split.labels).value
    return found


def in_parallel(jobs: int, work: Callable[..., object], calls: Iterable[tuple[Any, ...]]) -> None:
    """Several calls at a time, each in a process with one thread. The first failure is raised."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_one_thread) as pool:
        for future in as_completed([pool.submit(work, *call) for call in calls]):
            future.result()


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
