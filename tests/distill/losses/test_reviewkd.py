from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.losses._protocol import Site
from edgekd.distill.losses.criterion import Batch
from edgekd.distill.losses.reviewkd import ReviewKD
from edgekd.students.points import Point
from edgekd.testing.contracts.feature_loss import FeatureLossContract


def point(name: str, *shape: int) -> Point:
    return Point(name=name, shape=shape)


def normed(maps):
    return maps / np.sqrt(1 + 1e-5)  # fresh running statistics


def conv1(conv, maps):
    out = np.einsum("oc,nchw->nohw", conv.weight.detach().numpy()[:, :, 0, 0], maps)
    return out if conv.bias is None else out + conv.bias.detach().numpy()[:, None, None]


def conv3(conv, maps):
    weight, (height, width) = conv.weight.detach().numpy(), maps.shape[2:]
    padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sum(
        np.einsum("oc,nchw->nohw", weight[:, :, y, x], padded[:, :, y : y + height, x : x + width])
        for y in range(3)
        for x in range(3)
    )


def nearest(maps, side):
    at = np.arange(side) * maps.shape[2] // side
    return maps[:, :, at][:, :, :, at]


def pooled(maps, side):
    n, c, h, w = maps.shape
    return maps.reshape(n, c, side, h // side, side, w // side).mean((3, 5))


def context(own, hint):
    weights = [1.0]
    terms = [((own - hint) ** 2).mean()]
    for side in (4, 2, 1):
        if side < own.shape[2]:
            weights.append(weights[-1] / 2)
            terms.append(((pooled(own, side) - pooled(hint, side)) ** 2).mean())
    return np.dot(weights, terms) / sum(weights)


@pytest.mark.slow
class TestReviewKD(FeatureLossContract):
    @pytest.fixture
    def loss(self):
        return ReviewKD()

    @pytest.fixture(params=[1, 3])
    def site(self, request):
        """One stage or three, of which the teacher's is the larger, the smaller, and as large."""
        pairs = (
            (point("s1", 2, 4, 4), point("t1", 3, 8, 8)),
            (point("s2", 3, 4, 4), point("t2", 2, 2, 2)),
            (point("s3", 2, 2, 2), point("t3", 3, 2, 2)),
        )
        return Site(pairs=pairs[-request.param :], samples=12, classes=5)

    def test_is_the_papers_formula(self, criterion, inputs):
        student, teacher, batch = inputs
        total, deeper = 0.0, None
        for fusion, own, hint in list(zip(criterion.fusions, student, teacher, strict=True))[::-1]:
            own, hint = own.detach().numpy(), hint.numpy()
            fused = normed(conv1(fusion.enter[0], own))
            if deeper is not None:
                deeper = nearest(deeper, fused.shape[2])
                shares = 1 / (1 + np.exp(-conv1(fusion.attend, np.concatenate([fused, deeper], axis=1))))
                fused = shares[:, [0]] * fused + shares[:, [1]] * deeper
            side = min(own.shape[2], hint.shape[2])
            deeper = nearest(fused, side)
            total += context(normed(conv3(fusion.leave[0], deeper)), pooled(hint, side))
        assert float(criterion(student, teacher, batch).detach()) == pytest.approx(total)

    def test_a_shallow_stage_learns_from_every_deeper_one(self, criterion, inputs):
        student, teacher, _ = inputs
        handed = None
        for fusion, own, hint in list(zip(criterion.fusions, student, teacher, strict=True))[::-1]:
            answer, handed = fusion(own, handed, hint.shape[2:])
        answer.sum().backward()
        assert all(own.grad.abs().max() > 0 for own in student)


def test_fused_channels_are_the_deepest_stages_but_never_more_than_the_width():
    site = Site(pairs=((point("s", 32, 2, 2), point("t", 8, 2, 2)),), samples=4, classes=2)
    assert ReviewKD().criterion(site).fusions[0].enter[0].out_channels == 32
    assert ReviewKD(width=16).criterion(site).fusions[0].enter[0].out_channels == 16


def test_vectors_are_refused():
    site = Site(pairs=((point("s", 32), point("t", 8, 2, 2)),), samples=4, classes=2)
    assert ReviewKD().problem(site) == "it compares maps, and this point gives a vector"


def test_the_weight_warms_up_as_written():
    loss = ReviewKD.model_validate({"weight": {"from": 0, "to": 5, "end": 0.1}})
    assert [loss.at(progress).weight for progress in (0.0, 0.05, 0.1, 1.0)] == pytest.approx([0.0, 2.5, 5.0, 5.0])


@pytest.mark.slow
def test_a_student_learns_from_it():
    torch.manual_seed(0)
    site = Site(
        pairs=((point("s1", 4, 8, 8), point("t1", 6, 8, 8)), (point("s2", 8, 4, 4), point("t2", 12, 4, 4))),
        samples=16,
        classes=2,
    )
    first, second = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 8, 3, 2, 1)
    images, hints = torch.randn(16, 3, 8, 8), [torch.randn(16, 6, 8, 8), torch.randn(16, 12, 4, 4)]
    criterion = ReviewKD().criterion(site)
    parameters = [*first.parameters(), *second.parameters(), *criterion.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    batch, values = Batch(torch.arange(16), torch.arange(16)), []
    for _ in range(40):
        shallow = first(images).relu()
        value = criterion([shallow, second(shallow)], hints, batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert np.mean(values[-5:]) < 0.7 * values[0]
