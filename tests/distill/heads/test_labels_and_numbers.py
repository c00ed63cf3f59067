"""Several labels and numbers: each formula against numpy, gradients, and what is refused before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgekd.distill.augment.mixing import Mixed
from edgekd.distill.augment.mixup import MixUp
from edgekd.distill.heads._protocol import HeadLogits
from edgekd.distill.heads.batches import blended
from edgekd.distill.heads.multilabel import MultilabelTraining
from edgekd.distill.heads.regression import RegressionTraining
from edgekd.distill.heads.targets import targets_of
from edgekd.distill.losses.dist import DIST
from edgekd.distill.losses.dkd import DKD
from edgekd.distill.losses.kd import KD
from edgekd.distill.stage import Distill
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.teachers.student import StudentTeacher
from edgekd.testing.fakes.spots import LABELS, NUMBERS, SpotTask

RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.normal(size=(6, 3)), 3 * RNG.normal(size=(6, 3))
KNOWN = np.asarray([[1, 0, -1], [0, 0, 1], [-1, -1, -1], [1, 1, 1], [0, 1, 0], [-1, 0, 1]], np.int8)


def sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-values))


def leaf(values: NDArray[np.float64]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_labels_are_learnt_by_binary_cross_entropy_over_what_is_known() -> None:
    p = sigmoid(STUDENT)
    each = [-np.log(p[at] if KNOWN[at] else 1 - p[at]) for at in np.ndindex(KNOWN.shape) if KNOWN[at] >= 0]
    training = MultilabelTraining()
    found = training.label_loss(LABELS, [torch.tensor(STUDENT)], torch.tensor(KNOWN))
    assert float(found) == pytest.approx(np.mean(each))
    assert training.label_loss(LABELS, [torch.tensor(STUDENT)], torch.full((6, 3), -1)) is None
    assert torch.autograd.gradcheck(lambda z: training.label_loss(LABELS, [z], torch.tensor(KNOWN)), leaf(STUDENT))


def huber(error: np.ndarray) -> np.ndarray:
    size = np.abs(error)
    return np.where(size < 2, size**2 / 8, size / 2 - 0.5)


def test_numbers_are_learnt_standardised_over_what_is_known() -> None:
    labels = np.asarray([[1300.0, np.nan], [1420.0, 0.8], [np.nan, 0.2]])
    own = RNG.normal(size=(3, 2))
    wanted = (labels - [1300, 0.4]) / [120, 0.2]
    training = RegressionTraining()
    found = training.label_loss(NUMBERS, [torch.tensor(own)], torch.tensor(labels))
    assert float(found) == pytest.approx(np.nanmean(huber(own - wanted)))
    assert training.label_loss(NUMBERS, [torch.tensor(own)], torch.full((3, 2), torch.nan)) is None
    assert torch.autograd.gradcheck(lambda z: training.label_loss(NUMBERS, [z], torch.tensor(labels)), leaf(own))


def test_numbers_are_learnt_at_the_rate_that_suits_classes() -> None:
    """A squared error leaves this at infinity."""
    torch.manual_seed(0)
    features = torch.randn(64, 128).relu()
    labels = torch.stack([1300 + 120 * features[:, :64].mean(1), features[:, 64:].mean(1)], 1)
    head = NUMBERS.but(mean=tuple(labels.mean(0).tolist()), std=tuple(labels.std(0).tolist()))
    layer, training = torch.nn.Linear(128, 2), RegressionTraining()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(200):
        value = training.label_loss(head, [layer(features)], labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert float(value) < 0.01


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_kd_of_labels_is_binary_divergence(temperature: float) -> None:
    s, t = sigmoid(STUDENT / temperature), sigmoid(TEACHER / temperature)
    expected = temperature**2 * (t * np.log(t / s) + (1 - t) * np.log((1 - t) / (1 - s))).mean()
    loss, teacher = KD(temperature=temperature), torch.tensor(TEACHER)
    assert float(loss.of_labels(torch.tensor(STUDENT), teacher)) == pytest.approx(expected)
    assert float(loss.of_labels(teacher, teacher)) == pytest.approx(0, abs=1e-12)
    assert torch.autograd.gradcheck(lambda z: loss.of_labels(z, teacher), leaf(STUDENT))


def test_kd_of_numbers_is_their_distance() -> None:
    teacher = torch.tensor(TEACHER)
    assert float(KD().of_numbers(torch.tensor(STUDENT), teacher)) == pytest.approx(huber(STUDENT - TEACHER).mean())
    assert torch.autograd.gradcheck(lambda z: KD().of_numbers(z, teacher), leaf(STUDENT))


@pytest.mark.parametrize("labels", [1, 3])
def test_dist_of_labels_correlates_probabilities(labels: int) -> None:
    student, teacher = STUDENT[:, :labels], TEACHER[:, :labels]
    s, t = sigmoid(student / 4), sigmoid(teacher / 4)
    within = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(s, t, strict=True)]) if labels > 1 else 0.0
    across = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(s.T, t.T, strict=True)])
    found = DIST().of_labels(torch.tensor(student), torch.tensor(teacher))
    assert float(found) == pytest.approx(16 * (2 * within + 2 * across), rel=1e-4)
    assert torch.autograd.gradcheck(lambda z: DIST().of_labels(z, torch.tensor(teacher)), leaf(student))


def test_dist_of_numbers_correlates_each_over_samples() -> None:
    across = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(STUDENT.T, TEACHER.T, strict=True)])
    found = DIST(gamma=3).of_numbers(torch.tensor(STUDENT), torch.tensor(TEACHER))
    assert float(found) == pytest.approx(3 * across, rel=1e-4)
    assert torch.autograd.gradcheck(lambda z: DIST().of_numbers(z, torch.tensor(TEACHER)), leaf(STUDENT))


@pytest.mark.parametrize("of", ["labels", "numbers"])
def test_a_loss_without_a_form_is_not_taken_for_one_of_classes(of: Any) -> None:
    compared = HeadLogits(torch.tensor(STUDENT), torch.tensor(TEACHER), torch.tensor(KNOWN), of=of)
    with pytest.raises(ValueError, match=f"no form for {of}"):
        compared.by(DKD())


def test_mixing_shares_targets_and_what_one_does_not_know_nobody_does() -> None:
    task = SpotTask()
    labels = targets_of(task.spec, task.split("train").labels)
    way, indices = MixUp(alpha=1.0), np.arange(12)
    view = Mixed(ways=(way,))
    found = blended(task.spec, view, labels, indices, 3)
    from edgekd.distill.augment.mixing import partners

    other, share = partners(3, indices, 48), way.shares(indices, 3)[:, None]
    numbers = labels["numbers"].numpy()
    np.testing.assert_allclose(found["numbers"], numbers[:12] * share + numbers[other] * (1 - share), rtol=1e-5)
    known = labels["labels"].numpy().astype(np.float32)
    lost = (known[:12] < 0) | (known[other] < 0)
    assert lost.any()
    assert np.array_equal(found["labels"].numpy() == -1, lost)
    np.testing.assert_allclose(
        found["labels"].numpy()[~lost], (known[:12] * share + known[other] * (1 - share))[~lost], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("heads", "options", "words"),
    [
        ("labels", {"loss": {"dkd": {}}}, "it has no form for the multilabel head `labels`"),
        ("numbers", {"loss": {"mlkd": {}}}, "it has no form for the regression head `numbers`"),
        ("numbers", {"loss": {"dkd": {"weight": {"from": 0, "to": 0.5}}}}, "it has no form"),
        ("labels", {"loss": {"kd": {"standardize": True}}}, "can't be standardized"),
        ("numbers", {"loss": {"kd": {"standardize": True}}}, "can't be standardized"),
        ("numbers", {"augment": {"rotate": 10}}, "augment.rotate: moves pixels"),
        ("numbers", {"augment": {"crop": 2}}, "augment.crop: moves pixels"),
        ("numbers", {"augment": {"cutmix": 1.0}}, "augment.cutmix: mixes"),
        ("labels", {"label_smoothing": 0.1, "loss": "ce"}, "smoothed"),
        ("numbers", {}, ""),
        ("labels", {"augment": {"rotate": 10, "cutmix": 1.0}}, ""),
        ("numbers", {"augment": {"flip": True, "erase": 0.5, "colour": {"brightness": 0.1}, "mixup": 0.2}}, ""),
    ],
)
def test_what_can_not_be_is_refused_before_training(
    heads: str, options: dict[str, Any], words: str, context: Any, tmp_path: Path
) -> None:
    task = SpotTask([head for head in (LABELS, NUMBERS) if head.name == heads])
    family = ResNet.model_validate({"space": {"width": [8, 8], "depth": [1, 1]}, "stages": 2})
    student = new_student(family, family.space(task.spec).at(0), task.spec, 0)
    given = context(tmp_path, task=task, teacher=StudentTeacher(student, "twin"))
    problems = Distill.model_validate({"epochs": 1, **options}).check(student, given)
    assert [problem.message for problem in problems if words not in problem.message] == []
    assert bool(problems) == bool(words)
    assert all(problem.remedy for problem in problems)


def test_numbers_that_stay_where_pixels_move_may_be_cropped() -> None:
    staying, still = SpotTask([NUMBERS.but(invariant=True)], flip=False), SpotTask([NUMBERS], flip=False)
    augment = Distill().augment
    assert augment.view(still.spec) is None, "nobody asked for a crop"
    assert augment.view(staying.spec) is not None
    assert not Distill.model_validate({"augment": {"rotate": 10}}).augment.check(staying.spec)
