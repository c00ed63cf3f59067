from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.losses.ce import CrossEntropy
from edgekd.testing.contracts.loss import LossContract


class TestCrossEntropy(LossContract):
    @pytest.fixture(params=[0.0, 0.2])
    def loss(self, request):
        return CrossEntropy(label_smoothing=request.param)


def test_smoothing_is_the_papers_mixture():
    logits, labels, e = np.array([[2.0, -1.0, 0.5]]), [1], 0.3
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    q = (1 - e) * np.eye(3)[labels] + e / 3
    found = CrossEntropy(label_smoothing=e)(torch.tensor(logits), None, torch.tensor(labels))
    assert float(found) == pytest.approx(-(q * log_p).sum())
