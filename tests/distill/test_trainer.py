"""Every kind of training, stopped and killed: it ends bit by bit as one never interrupted."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgekd.distill import loop, teacher_source
from edgekd.distill import trainer as trainer_module
from edgekd.distill.autotune import Execution
from edgekd.distill.checkpoint import CHECKPOINT_FILE, Position, read_checkpoint, started
from edgekd.distill.curve import read_curve
from edgekd.distill.differentiable_search import CostBound, train_supernet
from edgekd.distill.generative import synthesis
from edgekd.distill.generative.data_free import DataFree
from edgekd.distill.generative.gan_augment import GanAugment
from edgekd.distill.generative.generated_images import IMAGES_FILE
from edgekd.distill.generative.picture import PICTURES_FILE
from edgekd.distill.learner import Learner
from edgekd.distill.stage import Distill
from edgekd.distill.trainer import Trainer, TrainerPlan
from edgekd.errors import Diverged, Interrupted
from edgekd.ir.space import Arch
from edgekd.records import digest_file
from edgekd.stages import Stage, StageContext
from edgekd.store.differentiable_options import DifferentiableOptions
from edgekd.store.records import CurvePoint
from edgekd.students.resnet import ResNet
from edgekd.students.student import Student, new_student
from edgekd.students.supernet.block_costs import Cost
from edgekd.students.supernet.choices import Choices
from edgekd.testing.fakes.bars import BarTask, OpenBarTeacher

TASK = BarTask()
FAMILY = ResNet.model_validate({"space": {"width": [8, 16], "depth": [1, 2]}, "stages": 2})
QUICK = {"epochs": 3, "batch_size": 32, "precision": "float32"}
INVENT = {
    "epochs": 2,
    "rounds": 3,
    "student_steps": 2,
    "batch_size": 16,
    "generator": {"latent": 8, "width": 8},
    "precision": "float32",
}
PLAN = "0" * 64

Stop = Callable[[], bool]
Ended = tuple[dict[str, Tensor], list[str]]
"""The tensors that a training ends with; its points and pictures."""


def given(folder: Path, stop: Stop) -> StageContext:
    return StageContext(
        task=TASK,
        teacher=OpenBarTeacher(),
        device=None,
        backend=None,
        folder=folder,
        cache=folder,
        seed=3,
        progress=lambda _: None,
        stop=stop,
    )


def untrained() -> Student:
    return new_student(FAMILY, Arch.of({"width1": 8, "width2": 8, "depth1": 1, "depth2": 1}), TASK.spec, seed=0)


@cache
def inherited() -> Student:
    """Trained, and of a kind that is never handed on worse than it was."""
    with TemporaryDirectory() as folder:
        stage = Distill(epochs=10, batch_size=16, loss="ce", precision="float32")
        return stage.run(untrained(), given(Path(folder), lambda: False)).but(family="pruned")


def staged(stage: Stage, student: Callable[[], Student], folder: Path, stop: Stop) -> Ended:
    if isinstance(stage, Distill):
        stage.prepare(given(folder, lambda: False))  # it is stopped in its steps alone
    trained = stage.run(student(), given(folder, stop))
    points = [point.but(images_per_s=1.0).model_dump_json() for point in read_curve(folder)]
    pictures = [digest_file(path) for path in folder.glob(PICTURES_FILE)]
    return dict(trained.module.state_dict()), points + pictures


def drawn(folder: Path, stop: Stop) -> Ended:
    gan = {"steps": 6, "batch_size": 8, "latent": 8, "width": 8}
    GanAugment.model_validate({**QUICK, "gan": gan}).prepare(given(folder, stop))
    return load_file(next(folder.rglob(IMAGES_FILE))), []


def chosen(folder: Path, stop: Stop) -> Ended:
    space = FAMILY.space(TASK.spec)
    macs = Cost.counted(FAMILY.block_costs(TASK.spec), "macs")
    bounds = [
        CostBound(how, macs.times(1 / (share * macs.of(space.at(space.size - 1), space.axes))), how, pull=0.02)
        for how, share in (("spend", 0.5), ("keep", 0.4))
    ]
    torch.manual_seed(0)
    network, choices = FAMILY.supernet(TASK.spec), Choices(space.axes)
    stage = Distill.model_validate({"loss": "ce", "epochs": 5, "batch_size": 30, "learning_rate": 0.1})
    with stage.training_data(untrained(), given(folder, stop)) as (training_data, loss, plan):
        points = train_supernet(
            network,
            choices,
            training_data,
            loss,
            plan,
            DifferentiableOptions(epochs=5),
            bounds,
            folder,
            Execution(),
            stop=stop,
        )
    ended = {**network.state_dict(), **choices.state_dict()}
    return ended, [point.but(images_per_s=1.0).model_dump_json() for point in points]


KINDS: dict[str, Callable[[Path, Stop], Ended]] = {
    "distill": partial(staged, Distill(**QUICK), untrained),
    "distill-plain": partial(
        staged, Distill(**QUICK, ema=0.0, momentum=0.0, cache=False, schedule="one-cycle", clip=0.1), untrained
    ),
    "distill-connectors": partial(staged, Distill(**QUICK, loss={"fitnet": {}, "crd": {}, "kd": {}}), untrained),
    "distill-best": partial(staged, Distill(**QUICK, learning_rate=1.0), inherited),  # whose start is the best
    "data-free": partial(staged, DataFree(**INVENT, bank=0), untrained),
    "data-free-bank": partial(staged, DataFree(**INVENT, bank=40, ema=0.0), untrained),
    "gan": drawn,
    "choice": chosen,
}


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout is not chosen by a clock: two of them differ in the last bits."""
    for module in (loop, synthesis):
        monkeypatch.setattr(module, "probe", lambda *_: Execution())
    monkeypatch.setattr(teacher_source, "fastest", lambda options, _: options[0])


def stopping(after: int) -> Stop:
    """Asked before each step; lets so many be done."""
    asked = itertools.count()
    return lambda: next(asked) >= after


def alike(one: Ended, other: Ended) -> bool:
    same = all(torch.equal(tensor, other[0][name]) for name, tensor in one[0].items())
    return same and one[0].keys() == other[0].keys() and one[1] == other[1]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2, 5], ids="every {} steps".format)
@pytest.mark.parametrize("kind", KINDS)
def test_stopped_again_and_again_it_ends_the_same(tmp_path, kind, steps):
    train, stops = KINDS[kind], 0
    whole = train(tmp_path / "whole", lambda: False)
    while True:
        try:
            ended = train(tmp_path / "parts", stopping(steps))
            break
        except Interrupted:
            stops += 1
            assert stops < 20, "it does not get on"
    assert stops >= 5 // steps
    assert alike(ended, whole)


@pytest.mark.slow
def test_killed_it_ends_the_same(tmp_path):
    """Between two steps, and while a checkpoint is put in its place."""
    subprocess.run([sys.executable, __file__, tmp_path], check=True)
    for kind in KINDS:
        whole, parts = (load_file(tmp_path / kind / f"{run}.safetensors") for run in ("whole", "parts"))
        assert whole.keys() == parts.keys()
        assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items()), kind


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_part_of_a_checkpoint_counts(tmp_path, kind):
    """None is stored in vain, and the comparison sees each: changed, the training ends otherwise."""
    train, folder = KINDS[kind], tmp_path / "parts"
    whole = train(tmp_path / "whole", lambda: False)
    with pytest.raises(Interrupted):
        train(folder, stopping(9 if kind == "choice" else 4))  # with steps before and after of all that learns
    (path,) = folder.rglob(CHECKPOINT_FILE)
    stored, before = load_file(path), path.read_bytes()
    parts = {".".join(name.split(".")[: 3 if name.startswith("state") else 1]) for name in stored}
    assert parts
    for part in sorted(parts - ({"losses"} if kind == "gan" else set())):  # whose losses only tell that it diverged
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(before)
        change(path, part)
        assert not alike(train(folder, lambda: False), whole), part
        for images in folder.rglob(IMAGES_FILE):
            images.unlink()
    path.write_bytes(before)
    assert alike(train(folder, lambda: False), whole)


def change(path: Path, part: str) -> None:
    """Other numbers in all tensors of one part of a checkpoint."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stored:
        about = stored.metadata()
    tensors = {name: tensor + 1 if name.startswith(part) else tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, about)


@pytest.mark.parametrize("left", [b"", b"not a checkpoint"], ids=["empty", "foreign"])
@pytest.mark.parametrize("kind", ["distill", "data-free", "choice"])
@pytest.mark.slow
def test_a_damaged_checkpoint_is_done_again(tmp_path, kind, left):
    whole = KINDS[kind](tmp_path / "whole", lambda: False)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / CHECKPOINT_FILE).write_bytes(left)
    assert alike(KINDS[kind](tmp_path / "parts", lambda: False), whole)


def trainer(folder: Path, **options: Any) -> tuple[Trainer[CurvePoint], nn.Module]:
    """One weight that goes up by 1 a step, for 3 epochs of 4 steps."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    learner = Learner(module, torch.optim.SGD(module.parameters(), lr=1.0))

    def step(_: object) -> dict[str, Tensor]:
        loss = -module.weight.sum()
        learner.descend(loss, 0)
        return {"loss": loss}

    plan = TrainerPlan(3, 4, seed=0, **options.pop("plan", {}))
    start = started(folder, options.pop("digest", PLAN), Position[CurvePoint], Execution)
    options = {"step": step, "diverged": lambda epoch: (f"in epoch {epoch}", "lower it"), **options}
    return Trainer(state={"module": learner}, plan=plan, start=start, **options), module


def test_another_plans_checkpoint_is_left_alone(tmp_path):
    with pytest.raises(Interrupted, match="stopped in epoch 2 of 3"):
        trainer(tmp_path)[0].run(stop=stopping(6))
    for digest, weight in (("1" * 64, 0.0), (PLAN, 0.0)):
        other, module = trainer(tmp_path, digest=digest)
        assert module.weight.item() == weight
        assert read_checkpoint(tmp_path / CHECKPOINT_FILE, digest, Position[CurvePoint]) is not None
        other.run()
        assert module.weight.item() == 12.0


def test_it_goes_on_where_it_was_and_sums_the_whole_epoch(tmp_path):
    sums = []

    def close(epoch: Any) -> CurvePoint:
        sums.append(epoch.losses["loss"])
        return CurvePoint(epoch=epoch.number, loss=1.0, validation=epoch.score, rate=1.0, images_per_s=1.0)

    with pytest.raises(Interrupted):
        trainer(tmp_path, close=close)[0].run(stop=stopping(6))
    again, module = trainer(tmp_path, close=close)
    assert module.weight.item() == 6.0
    reports = []
    again.run(progress=lambda done, total, _: reports.append((done, total)))
    assert sums == [-(0.0 + 1 + 2 + 3), -(4.0 + 5 + 6 + 7), -(8.0 + 9 + 10 + 11)]
    assert reports == [(8, 12), (12, 12)]
    assert [point.epoch for point in again.position.points] == [0, 1, 2]


def test_a_training_has_a_checkpoint_before_its_first_step_and_after_each_where_that_is_asked(tmp_path):
    begun, _ = trainer(tmp_path, plan={"checkpoint_every_s": 0.0})
    weights = []

    def stop() -> bool:
        weights.append(float(load_file(tmp_path / CHECKPOINT_FILE)["state.module.value.weight"]))
        return False

    begun.run(stop=stop)
    assert weights == list(range(12))


def test_every_step_has_a_seed_of_its_own(tmp_path):
    def drawn(folder: Path, **plan: Any) -> list[float]:
        found = []

        def step(_: object) -> dict[str, Tensor]:
            found.append(float(torch.rand(())))
            return {}

        trainer(folder, step=step, plan=plan)[0].run()
        return found

    by_epoch = drawn(tmp_path / "epoch")
    assert len(set(by_epoch)) == 12
    assert by_epoch == drawn(tmp_path / "again")
    assert by_epoch != drawn(tmp_path / "number", seeded_by="number")


@pytest.mark.parametrize("what", ["loss", "weight"])
def test_a_loss_or_a_weight_that_is_no_number_ends_it(tmp_path, what):
    def step(_: object) -> dict[str, Tensor]:
        with torch.no_grad():
            module.weight += float("inf") if what == "weight" else 1.0
        return {"loss": torch.tensor(float("nan") if what == "loss" else 0.0)}

    begun, module = trainer(tmp_path, step=step)
    with pytest.raises(Diverged, match="in epoch 0"):
        begun.run()
    kept = load_file(tmp_path / CHECKPOINT_FILE)
    assert float(kept["state.module.value.weight"]) == 0.0, "the last good checkpoint stays"


def killing(folder: Path) -> None:
    """Train each kind once whole, and once in four processes of which three are killed."""
    torch.set_num_threads(1)  # or a fork would wait for threads that it has not
    for kind, train in KINDS.items():
        save_file(train(folder / kind / "whole", lambda: False)[0], folder / kind / "whole.safetensors")
        for steps, how in ((2, "step"), (1, "replace"), (1, "step"), (None, "end")):
            child = os.fork()  # all is imported and set up there
            if not child:
                tensors, _ = train(folder / kind / "parts", dying(steps, how) if steps else lambda: False)
                save_file(tensors, folder / kind / "parts.safetensors")
                os._exit(0)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == (-signal.SIGKILL if steps else 0), (kind, steps, how)
            assert not steps or list((folder / kind / "parts").rglob(CHECKPOINT_FILE))


def dying(steps: int, how: str) -> Stop:
    """Kills its own process after so many steps, or where it then replaces its checkpoint."""
    allowed, replace = stopping(steps), os.replace

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def stop() -> bool:
        if allowed() and how == "step":
            die()
        elif allowed():
            os.replace = lambda draft, path: die() if str(path).endswith(CHECKPOINT_FILE) else replace(draft, path)
        return False

    return stop


if __name__ == "__main__":
    loop.probe = synthesis.probe = lambda *_: Execution()
    teacher_source.fastest = lambda options, _: options[0]
    ticks = itertools.count(0.0, 1000.0)
    trainer_module.time = SimpleNamespace(perf_counter=lambda: next(ticks))  # so that each step leaves a checkpoint
    killing(Path(sys.argv[1]))
