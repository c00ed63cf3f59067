from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.losses.fitnet import FitNet
from edgekd.testing.contracts.feature_loss import FeatureLossContract


class TestFitNet(FeatureLossContract):
    @pytest.fixture
    def loss(self):
        return FitNet()

    def test_is_the_papers_formula(self, criterion, inputs):
        student, teacher, batch = inputs
        terms = []
        for connector, own, hint in zip(criterion.connectors, student, teacher, strict=True):
            own, hint = own.detach().numpy(), hint.numpy()
            n, c, h, w = hint.shape
            hint = hint.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5))  # the teacher's map is twice as large
            weight, bias = (tensor.detach().numpy() for tensor in (connector.project.weight, connector.project.bias))
            projected = np.einsum("oc,nchw->nohw", weight[:, :, 0, 0], own) + bias[:, None, None]
            terms.append(0.5 * ((hint - projected) ** 2).mean())
        assert float(criterion(student, teacher, batch)) == pytest.approx(np.mean(terms))

    def test_vectors_are_matched_too(self, loss):
        from edgekd.distill.losses._protocol import Site
        from edgekd.distill.losses.criterion import Batch
        from edgekd.students.points import Point

        site = Site(pairs=((Point(name="a", shape=(3,)), Point(name="b", shape=(5,))),), samples=4, classes=2)
        value = loss.criterion(site)([torch.ones(4, 3)], [torch.ones(4, 5)], Batch(torch.arange(4), torch.arange(4)))
        assert torch.isfinite(value)
