"""Inherited weights keep the estimates' promises, and tell a good cut from a bad one without a full recovery."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from edgekd.artefacts import Backend
from edgekd.compress.pruning.family import Pruned
from edgekd.distill.predict import predict
from edgekd.distill.stage import Distill
from edgekd.errors import ConfigurationError
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate, CompressionPlan
from edgekd.ir.space import Arch
from edgekd.search.accuracy.inherit import Inherited
from edgekd.search.accuracy.recalibrate import Recalibrate
from edgekd.search.accuracy.scoring import stage_context
from edgekd.search.finalists.trainer import RecipeTrainer
from edgekd.stages import StageContext
from edgekd.students._protocol import Student
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.testing.contracts.accuracy import AccuracyContract, EstimateLife

MODEL = """
from torch import nn
def build():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(64, 3),
    )
"""
RECIPE = (Distill.model_validate({"loss": {"ce": {}}, "epochs": 30, "batch_size": 32}),)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory, bars: Any) -> Pruned:
    """A model that has learned the bars by a few steps of plain gradient descent."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "bars_model.py").write_text(MODEL)
    space: dict[str, Any] = {}
    exec(MODEL, space)
    torch.manual_seed(0)
    model = space["build"]()
    task = bars
    split = task.split("train")
    inputs, labels = (torch.from_numpy(split.inputs).float() - 60) / 60, torch.from_numpy(split.labels)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    validation = task.split("validation")
    assert task.score(predict(model, validation.inputs, task.spec), validation.labels).value > 0.9
    save_file(model.state_dict(), folder / "weights.safetensors")
    options = {"model": {"target": "bars_model:build", "folder": str(folder)}, "weights": "weights.safetensors"}
    return Pruned.model_validate(options, context={"folder": folder})


def candidate(family: Pruned, context: Any, share: float) -> Candidate:
    axes = family.space(context.task.spec).axes
    choices = {axis.name: min(axis.choices, key=lambda c: abs(c - share)) for axis in axes}
    return Candidate(
        family="pruned",
        arch=Arch.of(choices),
        plan=CompressionPlan(precision=Precision.INT8),
        backend=Backend.model_validate("litert/xnnpack"),
    )


@pytest.mark.slow
class TestInherited(AccuracyContract):
    @pytest.fixture
    def life(self, family: Pruned, context_of: Callable[..., Any], tmp_path: Path) -> EstimateLife:
        context = context_of(family, RECIPE)
        return EstimateLife(Inherited(recover=1), candidate(family, context(tmp_path), 0.5), context)


@pytest.mark.slow
def test_without_recovery_nothing_is_trained(
    family: Pruned, context_of: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, recalibrated, plain = context_of(family, RECIPE)(tmp_path), list[Arch](), Recalibrate.run
    half_arch = candidate(family, context, 0.5).arch

    def run(self: Recalibrate, student: Student, where: StageContext) -> Student:
        recalibrated.append(student.arch)
        return plain(self, student, where)

    monkeypatch.setattr(Recalibrate, "run", run)
    whole = Inherited(recover=0).estimate(candidate(family, context, 1.0), context)
    half = Inherited(recover=0).estimate(candidate(family, context, 0.5), context)
    assert whole.images_per_s is not None  # what a full recipe would train at
    assert whole.accuracy.value > 0.9
    assert "recalibrated" in half.accuracy.method
    assert "recalibrated" not in whole.accuracy.method
    assert recalibrated == [half_arch], "the whole model's statistics are right as they are"
    assert whole.accuracy.value >= half.accuracy.value


def test_a_finalist_starts_as_its_trial_was_estimated(
    family: Pruned, context_of: Callable[..., Any], tmp_path: Path
) -> None:
    """Without a training of its own, a pruned finalist is the very student whose accuracy chose it."""
    context = context_of(family, ())(tmp_path)
    half = candidate(family, context, 0.5)
    nothing: Any = None
    run: Any = SimpleNamespace(
        proposals=lambda: None, trials=list, teacher_tunings=list, plan=lambda: None, students=context.students
    )
    trainer = RecipeTrainer(run, context, nothing, nothing, nothing)
    norm = trainer._train(half, Precision.FLOAT32).student.module.get_submodule("1")
    begun = new_student(family, half.arch, context.task.spec, context.seed)
    where = stage_context(half, context)
    expected = Recalibrate().run(begun, where).module.get_submodule("1")
    assert torch.equal(norm.running_mean, expected.running_mean)
    assert not torch.equal(norm.running_mean, begun.module.get_submodule("1").running_mean)
    again = replace(trainer, start=begun)  # a round has recalibrated and trained it already
    assert torch.equal(
        again._train(half, Precision.FLOAT32).student.module.get_submodule("1").running_mean,
        begun.module.get_submodule("1").running_mean,
    )


def test_a_family_without_weights_is_refused(context_of: Callable[..., Any], tmp_path: Path) -> None:
    context = context_of(ResNet(), RECIPE)(tmp_path)
    plain = Candidate(family="resnet", arch=ResNet().space(context.task.spec).at(0))
    with pytest.raises(ConfigurationError, match="no weights to inherit"):
        Inherited().estimate(plain, context)
