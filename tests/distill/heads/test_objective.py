"""From answers, labels and teachers to one number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgekd.distill.heads.objective import HeadsObjective
from edgekd.distill.heads.targets import targets_of
from edgekd.distill.losses.combined import Combined
from edgekd.students.resnet import ResNet
from edgekd.tasks.rows import ABSENT, IGNORED, UNKNOWN
from edgekd.tasks.shapes import Shapes
from edgekd.teachers.packing import packed, packing_of

TASK = Shapes(train=12, test=4, validation=4, calibration=4, side=32)
FAMILY = ResNet.model_validate({"space": {"width": [8, 8], "depth": [1, 1]}})
CE, KD = Combined.model_validate("ce"), Combined.model_validate({"kd": {"weight": 0.5}})


def answers(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    module = FAMILY.build(FAMILY.space(TASK.spec).at(0), TASK.spec)
    raw = torch.from_numpy(TASK.split("train").inputs).float()
    with torch.no_grad():
        return {name: value.clone().requires_grad_() for name, value in module((raw - 128) / 64).items()}


def targets() -> dict[str, torch.Tensor]:
    return targets_of(TASK.spec, TASK.split("train").labels)


def total(task, loss, raw, taught, labels, layout=()) -> torch.Tensor:
    return torch.stack(HeadsObjective(task, "none", teacher_packing=layout)(loss, raw, taught, labels)).sum()


def test_labels_alone_add_up_the_heads_losses() -> None:
    raw, labels = answers(0), targets()
    value = total(TASK.spec, CE, raw, None, labels)
    parts = []
    for head in TASK.spec.heads:
        one = TASK.spec.but(head=head, more=())
        parts.append(float(total(one, CE, raw, None, labels)))
    assert float(value) == pytest.approx(sum(parts), rel=1e-5)
    assert parts[0] == pytest.approx(float(functional.cross_entropy(raw["scene"], labels["scene"])), rel=1e-5)
    value.backward()
    assert all(answer.grad is not None and torch.isfinite(answer.grad).all() for answer in raw.values())


def test_packed_answers_teach_as_named_ones_do() -> None:
    raw, taught, labels = answers(0), answers(1), targets()
    by_name = total(TASK.spec, KD, raw, taught, labels)
    rows = total(TASK.spec, KD, raw, packed(taught), labels, packing_of(taught))
    assert float(by_name) == pytest.approx(float(rows), rel=1e-6)
    assert float(by_name) != pytest.approx(float(total(TASK.spec, CE, raw, None, labels)))


def test_a_head_without_a_teacher_learns_from_labels_with_all_its_weight() -> None:
    raw, labels = answers(0), targets()
    taught = {name: value for name, value in answers(1).items() if name == "scene"}
    only = total(TASK.spec, KD, raw, taught, labels)
    scene = total(TASK.spec.but(head=TASK.spec.head, more=()), KD, raw, taught, labels)
    rest = [total(TASK.spec.but(head=h, more=()), CE, raw, None, labels) for h in TASK.spec.more]
    assert float(only) == pytest.approx(float(scene) + sum(map(float, rest)), rel=1e-5)


def test_without_any_label_the_teacher_alone_teaches() -> None:
    raw, taught, labels = answers(0), answers(1), targets()
    labels["scene"].fill_(ABSENT)
    labels["mask"].fill_(IGNORED)
    labels["things"][:, :, 4] = UNKNOWN
    nothing = total(TASK.spec, CE, raw, None, labels)
    assert float(nothing) == 0.0
    nothing.backward()
    value = total(TASK.spec, KD, raw, taught, labels)
    value.backward()
    assert float(value) > 0
    assert all(answer.grad is not None for answer in raw.values())


def test_a_student_that_answers_as_its_teacher_has_nothing_to_learn_from_it() -> None:
    raw, labels = answers(0), targets()
    loss = Combined.model_validate({"kd": {"weight": 1.0}})
    assert float(total(TASK.spec, loss, raw, raw, labels)) == pytest.approx(0.0, abs=1e-5)


def test_a_head_that_diverged_is_seen() -> None:
    raw = answers(0)
    raw["mask"] = raw["mask"] * float("nan")
    assert torch.isnan(total(TASK.spec, CE, raw, None, targets()))


def test_targets_are_the_labels_fields() -> None:
    assert np.array_equal(targets()["mask"].numpy(), TASK.split("train").labels["mask"])
