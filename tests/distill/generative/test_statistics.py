from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.distill.generative.statistics import Observed, classifier_of, moments, norms_of


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(108, 4),
        nn.BatchNorm1d(4),
        nn.Linear(4, 2),
    ).eval()


def images(count=16):
    return torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(1)) * 3 + 1


def taught_by(module, batch):
    """Its running statistics set to exactly those of the batch, as the batch passes in eval mode."""
    seen = {}
    for norm in norms_of(module):  # in order: what comes later depends on what comes before
        with torch.no_grad():
            handle = norm.register_forward_pre_hook(lambda part, taken: seen.update({part: taken[0]}))
            module(batch)
            handle.remove()
            axes = [axis for axis in range(seen[norm].ndim) if axis != 1]
            variance, mean = torch.var_mean(seen[norm], axes, correction=0)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
    return module


def test_zero_on_data_with_exactly_those_statistics_and_not_on_other():
    module = taught_by(network(), images())
    with Observed(module) as seen:
        module(images())
        assert seen.statistics().item() == pytest.approx(0, abs=1e-4)
        module(images() * 1.5)
        assert seen.statistics().item() > 0.5


def test_is_the_sum_of_norms_over_layers():
    module = network()
    first, second = norms_of(module)
    taken = {}
    first.register_forward_pre_hook(lambda _, got: taken.update(first=got[0].detach().numpy()))
    second.register_forward_pre_hook(lambda _, got: taken.update(second=got[0].detach().numpy()))
    with Observed(module) as seen:
        module(images())
        found = seen.statistics().item()
    expected = sum(
        np.linalg.norm(taken[name].mean(axes) - 0) + np.linalg.norm(taken[name].var(axes) - 1)
        for name, axes in (("first", (0, 2, 3)), ("second", (0,)))
    )
    assert found == pytest.approx(expected, rel=1e-5)


def test_moments_and_their_gradients():
    batch = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 2 + 50
    offset, variance = moments(batch, torch.full((3,), 49.0))
    assert np.allclose(offset.numpy() + 49, batch.numpy().mean((0, 2, 3)), atol=1e-5)
    assert np.allclose(variance.numpy(), batch.numpy().var((0, 2, 3)), atol=1e-5)
    by_hand = batch.clone().requires_grad_(True)
    sum(part.sin().sum() for part in moments(by_hand, torch.full((3,), 49.0))).backward()
    plain = batch.clone().requires_grad_(True)
    spread, mean = torch.var_mean(plain, (0, 2, 3), correction=0)
    ((mean - 49).sin().sum() + spread.sin().sum()).backward()
    assert torch.allclose(by_hand.grad, plain.grad, atol=1e-6)


def test_no_hook_stays_even_after_an_error():
    module = network()
    with pytest.raises(RuntimeError), Observed(module, features=True):
        module(torch.zeros(1, 5, 8, 8))
    assert not any(part._forward_pre_hooks for part in module.modules())


def test_features_are_what_the_last_linear_layer_takes():
    module = network()
    with Observed(module, statistics=False, features=True) as seen:
        answers = module(images())
        features = seen.features()
        with pytest.raises(RuntimeError, match="no forward pass"):
            seen.features()
    assert torch.allclose(classifier_of(module)(features), answers)
