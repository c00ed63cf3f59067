"""BatchNorm statistics are those of the training samples, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.compress.quantization.stage import Quantize
from edgekd.distill.autotune import Execution, training_rate
from edgekd.errors import Interrupted
from edgekd.ir.space import Arch
from edgekd.search.accuracy.recalibrate import Recalibrate, recalibrated_first
from edgekd.stages import StageContext
from edgekd.students._protocol import Student
from edgekd.students.own import Own
from edgekd.students.resnet import ResNet
from edgekd.tasks._protocol import HeadSpec, InputSpec, Split, TextSpec

OWN = Path(__file__).parents[3] / "examples" / "own_model"


@pytest.fixture
def context(context_of: Callable[..., Any], tmp_path: Path) -> StageContext:
    plain = context_of(ResNet(), ())(tmp_path)
    return StageContext(plain.task, None, None, None, tmp_path, tmp_path, 0, lambda _: None, lambda: False)


def student(context: StageContext, *layers: nn.Module) -> Student:
    return Student(nn.Sequential(*layers).eval(), context.task.spec, "resnet", {}, Arch.of({"width1": 8}))


def test_statistics_are_those_of_the_samples(context: StageContext) -> None:
    norm = nn.BatchNorm2d(1)
    norm.running_mean.fill_(9.0)
    before = student(context, norm)
    after = Recalibrate(samples=96).run(before, context)
    inputs = (torch.from_numpy(context.task.split("train").inputs).float() - 60) / 60
    assert after.module[0].running_mean.item() == pytest.approx(inputs.mean().item(), abs=1e-5)
    assert after.module[0].running_var.item() == pytest.approx(inputs.var().item(), rel=1e-3)
    assert after.module[0].momentum == norm.momentum
    assert norm.running_mean.item() == 9.0  # the given one is left alone
    assert not after.module.training


def test_an_own_model_keeps_its_statistics(context: StageContext) -> None:
    family = Own.model_validate({"model": "my_model.py:build"}, context={"folder": OWN})
    spec = context.task.spec.but(head=HeadSpec(classes=10))
    recipe = (Quantize.model_validate({"precision": "int8"}),)
    assert recalibrated_first(recipe, Arch(), family, spec) == recipe


def test_without_training_images_those_of_calibration_serve(context: StageContext, monkeypatch) -> None:
    whole, norm = context.task.split, nn.BatchNorm2d(1)
    nothing = replace(whole("train"), inputs=np.empty((0, 1, 8, 8), np.uint8), labels=np.empty(0, int))
    monkeypatch.setattr(context.task, "split", lambda name: nothing if name == "train" else whole(name))
    after = Recalibrate(samples=96).run(student(context, norm), context)
    inputs = (torch.from_numpy(whole("calibration").inputs).float() - 60) / 60
    assert after.module[0].running_mean.item() == pytest.approx(inputs.mean().item(), abs=0.05)


def test_a_few_samples_of_rest_weigh_as_much_as_others(context: StageContext, monkeypatch) -> None:
    split, norm = context.task.split("train"), nn.BatchNorm2d(1)
    inputs = np.zeros((130, 1, 8, 8), np.uint8)
    inputs[128:] = 255
    uneven = replace(split, inputs=inputs, labels=np.zeros(130, int))
    monkeypatch.setattr(context.task, "split", lambda _: uneven)
    after = Recalibrate().run(student(context, norm), context)
    expected = (torch.from_numpy(inputs).float().mean() - 60) / 60
    assert after.module[0].running_mean.item() == pytest.approx(expected.item(), abs=1e-4)


def test_dropout_stays_off_and_weights_as_they_were(context: StageContext) -> None:
    before = student(context, nn.Conv2d(1, 4, 3), nn.Dropout(0.9), nn.BatchNorm2d(4))
    after = Recalibrate().run(before, context)
    assert torch.equal(after.module[0].weight, before.module[0].weight)
    expected = before.module[0]((torch.from_numpy(context.task.split("train").inputs).float() - 60) / 60)
    assert torch.allclose(after.module[2].running_mean, expected.mean((0, 2, 3)), atol=1e-5)


def test_no_batch_norm_no_change(context: StageContext) -> None:
    before = student(context, nn.Flatten(), nn.Linear(64, 3))
    after = Recalibrate().run(before, context)
    assert torch.equal(after.module[1].weight, before.module[1].weight)


def test_a_wish_to_stop_is_heard(context: StageContext) -> None:
    from dataclasses import replace

    with pytest.raises(Interrupted):
        Recalibrate().run(student(context, nn.BatchNorm2d(1)), replace(context, stop=lambda: True))


def test_training_rate_is_positive_and_changes_nothing(context: StageContext) -> None:
    before = student(context, nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 3))
    weight = before.module[2].weight.clone()
    assert training_rate(before.module, InputSpec(shape=(1, 8, 8)), torch.device("cpu")) > 0
    assert torch.equal(before.module[2].weight, weight)
    assert before.module[0].num_batches_tracked.item() == 0


def test_training_rate_is_timed_as_training_would_compute() -> None:
    threads = list[int]()

    class Counting(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            threads.append(torch.get_num_threads())
            return super().forward(inputs)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        training_rate(Counting(8, 3), InputSpec(shape=(8,)), torch.device("cpu"), execution=Execution(threads=1))
    finally:
        torch.set_num_threads(before)
    assert set(threads) == {1}


def test_without_two_samples_the_statistics_stay(context: StageContext, monkeypatch) -> None:
    whole, norm = context.task.split, nn.BatchNorm2d(1)
    norm.running_mean.fill_(9.0)
    for count in (0, 1):
        few = replace(whole("train"), inputs=whole("train").inputs[:count], labels=whole("train").labels[:count])
        monkeypatch.setattr(context.task, "split", lambda _, few=few: few)
        assert Recalibrate().run(student(context, norm), context).module[0].running_mean.item() == 9.0


def test_ids_of_tokens_are_not_normalised(context: StageContext) -> None:
    class Texts:
        spec = context.task.spec.but(
            input=InputSpec(shape=(6,), raw_dtype="int32", text=TextSpec(vocabulary=9, padding=0, tokenizer="0" * 64))
        )

        def split(self, name: str) -> Split:
            ids = np.random.default_rng(0).integers(0, 9, (64, 6), np.int32)
            return Split(name, ids, np.zeros(64, np.int64), "0" * 64)

    task: Any = Texts()
    layers = nn.Sequential(nn.Embedding(9, 4), Turned(), nn.BatchNorm1d(4)).eval()
    before = Student(layers, task.spec, "pruned", {}, Arch.of({}))
    after = Recalibrate().run(before, replace(context, task=task))
    assert not torch.equal(after.module[2].running_mean, before.module[2].running_mean)


class Turned(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2)
