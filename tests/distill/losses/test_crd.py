from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.losses._protocol import Site
from edgekd.distill.losses.crd import CRD
from edgekd.distill.losses.criterion import Batch
from edgekd.students.points import Point
from edgekd.testing.contracts.feature_loss import FeatureLossContract


def site_of(student: int, teacher: int, samples: int) -> Site:
    pair = (Point(name="penultimate", shape=(student,)), Point(name="penultimate", shape=(teacher,)))
    return Site(pairs=(pair,), samples=samples, classes=2)


class TestCRD(FeatureLossContract):
    @pytest.fixture
    def loss(self):
        return CRD(dimension=4, negatives=5, temperature=0.5)

    @pytest.fixture(params=["vectors", "maps"])
    def site(self, request):
        sizes = ((), ()) if request.param == "vectors" else ((2, 2), (1, 3))
        points = [Point(name="p", shape=(width, *size)) for width, size in zip((3, 6), sizes, strict=True)]
        return Site(pairs=(tuple(points),), samples=12, classes=5)

    @pytest.fixture
    def criterion(self, loss, site, inputs):
        """One that has seen a batch: before it, Z is an estimate from the batch itself, which has no gradient."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            criterion = loss.criterion(site).double()
            criterion(*inputs)
        return criterion.eval()

    def test_is_the_papers_formula(self, criterion, inputs):
        (own,), (hint,), batch = inputs
        contrast = criterion.contrasts[0]

        def embedded(layer, features):
            features = features.detach().numpy().reshape(6, len(features[0]), -1).mean(2)
            vectors = features @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
            return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

        s, t = embedded(contrast.embed_student, own), embedded(contrast.embed_teacher, hint)
        samples, k, tau = 12, 5, 0.5
        negatives, total = [0, 2, 4, 7, 9], 0.0
        for reference_archs, bank, mean in (
            (s, contrast.teacher_bank.numpy(), float(contrast.means[0])),
            (t, contrast.student_bank.numpy(), float(contrast.means[1])),
        ):
            z = samples * mean

            def critic(reference_arch, entry, z=z):
                p = np.exp(reference_arch @ entry / tau) / z
                return p / (p + k / samples)

            for reference_arch, index in zip(reference_archs, batch.indices.tolist(), strict=True):
                total -= np.log(critic(reference_arch, bank[index]))
                total -= sum(np.log(1 - critic(reference_arch, bank[j])) for j in negatives if j != index)
        assert float(criterion([own], [hint], batch).detach()) == pytest.approx(total / 6)


def test_a_bank_moves_towards_what_is_seen_of_a_sample():
    torch.manual_seed(0)
    criterion = CRD(dimension=4, negatives=3, momentum=0.25).criterion(site_of(3, 5, 8))
    contrast = criterion.contrasts[0]
    before = contrast.student_bank.clone()
    own, indices = torch.randn(2, 3), torch.tensor([6, 1])
    criterion([own], [torch.randn(2, 5)], Batch(indices, indices))
    seen = contrast.embed_student(own).detach()
    moved = 0.25 * before[indices] + 0.75 * seen / seen.norm(dim=1, keepdim=True)
    torch.testing.assert_close(contrast.student_bank[indices], moved / moved.norm(dim=1, keepdim=True))
    others = [0, 2, 3, 4, 5, 7]
    assert torch.equal(contrast.student_bank[others], before[others])


def test_z_is_the_first_batchs():
    torch.manual_seed(0)
    criterion = CRD(dimension=4, negatives=7).criterion(site_of(3, 5, 8))
    means = criterion.contrasts[0].means
    batch = Batch(torch.arange(8), torch.arange(8))
    assert torch.equal(means, torch.zeros(2))
    criterion([torch.randn(8, 3)], [torch.randn(8, 5)], batch)
    first = means.clone()
    assert (first > 0).all()
    criterion([torch.randn(8, 3)], [torch.randn(8, 5)], batch)
    assert torch.equal(means, first)


def test_negatives_follow_torchs_seed():
    torch.manual_seed(0)
    criterion = CRD(dimension=4, negatives=3, momentum=0.0).criterion(site_of(3, 5, 100))
    own, hint, batch = torch.randn(4, 3), torch.randn(4, 5), Batch(torch.arange(4), torch.arange(4))
    criterion([own], [hint], batch)  # with no momentum, the banks stand still from here on
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(float(criterion([own], [hint], batch).detach()))
    assert values[0] == values[1] != values[2]


def test_banks_that_are_too_large_are_refused():
    assert CRD().problem(site_of(64, 256, 50_000)) == ""
    assert CRD().problem(site_of(64, 256, 1_281_167)) == (
        "its memory banks would take 1.22 GiB for 1,281,167 samples, above `bank` (512 MiB): lower `dimension` "
        "(it is 128), or raise `bank`"
    )
    assert CRD.model_validate({"bank": "2 GiB"}).problem(site_of(64, 256, 1_281_167)) == ""


def test_a_student_learns_from_it():
    torch.manual_seed(0)
    hints = torch.randn(64, 6)
    seen = hints @ torch.randn(6, 10)
    student = torch.nn.Linear(10, 4)
    criterion = CRD(dimension=8, negatives=63).criterion(site_of(4, 6, 64))
    optimizer = torch.optim.SGD([*student.parameters(), *criterion.parameters()], lr=0.05, momentum=0.9)
    batch, values = Batch(torch.arange(64), torch.arange(64)), []
    for _ in range(50):
        value = criterion([student(seen)], [hints], batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert np.mean(values[-5:]) < 0.7 * np.mean(values[:5])
