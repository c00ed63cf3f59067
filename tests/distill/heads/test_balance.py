"""What heads are worth beside each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edgekd.distill.heads._protocol import BalanceName
from edgekd.distill.heads.balance import GradNorm, Uncertainty, balance_of


def total(terms: list[torch.Tensor | None]) -> torch.Tensor:
    return torch.stack([term for term in terms if term is not None]).sum()


@pytest.mark.parametrize("name", ["none", "uncertainty", "gradnorm"])
def test_what_is_absent_stays_absent_and_the_rest_is_as_it_was_at_first(name: BalanceName) -> None:
    terms = balance_of(name, 3)([torch.tensor(1.0), None, torch.tensor(2.0)], ())
    assert [None if term is None else float(term) for term in terms] == [1.0, None, 2.0]


@pytest.mark.parametrize("name", ["none", "uncertainty", "gradnorm"])
def test_a_loss_that_is_no_number_is_not_hidden(name: BalanceName) -> None:
    assert torch.isnan(total(balance_of(name, 2)([torch.tensor(math.nan), torch.tensor(1.0)], ())))


def test_uncertainty_settles_where_the_paper_says() -> None:
    balance, losses = Uncertainty(2), [torch.tensor(4.0), torch.tensor(0.25)]
    optimizer = torch.optim.SGD(balance.parameters(), 0.1)
    for _ in range(500):
        optimizer.zero_grad()
        total(balance(losses, ())).backward()
        optimizer.step()
    # exp(-s) L + s / 2 is least at s = log(2 L)
    assert balance.logs.tolist() == pytest.approx([math.log(8.0), math.log(0.5)], abs=1e-3)
    # there: 1/2 + log(2 L) / 2
    assert float(total(balance([None, torch.tensor(0.25)], ()))) == pytest.approx(0.5 + math.log(0.5) / 2, abs=1e-3)


def test_gradnorm_evens_out_the_pulls() -> None:
    shared = torch.ones(3, requires_grad=True)
    balance = balance_of("gradnorm", 2)
    assert isinstance(balance, GradNorm)
    for _ in range(300):
        balance([(10 * shared).sum(), shared.sum()], (shared,))
    pulls = balance.weights * torch.tensor([10.0, 1.0])
    assert float(balance.weights.sum()) == pytest.approx(2.0, rel=1e-5)
    assert float(pulls[0]) == pytest.approx(float(pulls[1]), rel=0.35)
    kept = balance.weights.clone()
    balance.eval()([shared.sum(), shared.sum()], (shared,))
    assert torch.equal(balance.weights, kept)


Array = NDArray[np.float64]


def heads(slopes: Array, values: Array, shared: list[torch.Tensor]) -> list[torch.Tensor | None]:
    """Losses of those values, with those gradients on what is shared."""
    weights = torch.cat([part.flatten() for part in shared])
    moved = weights - weights.detach()
    return [
        (torch.tensor(slope, dtype=torch.float32) * moved).sum() + value
        for slope, value in zip(slopes, values.tolist(), strict=True)
    ]


def papers_step(weights: Array, norms: Array, values: Array, first: Array) -> Array:
    """Equations 1 and 2 of Chen et al., differentiated by differences with the wanted pulls held; alpha is 0.5.

    The one thing changed: norms are in units of their mean.
    """
    norms = norms / norms.mean()
    rates = values / first
    wanted = (weights * norms).mean() * (rates / rates.mean()) ** 0.5

    def missed(weights: Array) -> float:
        return float(np.abs(weights * norms - wanted).sum())

    little = 1e-6 * np.eye(len(weights))
    slope = np.asarray([(missed(weights + one) - missed(weights - one)) / 2e-6 for one in little])
    moved = weights - 0.025 * slope
    return np.asarray(len(weights) * moved / moved.sum())


def test_a_step_of_gradnorm_is_the_papers() -> None:
    shared = [torch.ones(3, requires_grad=True), torch.ones((2, 2), requires_grad=True)]
    weights, first = np.asarray([0.5, 1.5, 0.8, 1.2]), np.asarray([2.0, 0.5, 4.0, 1.0])
    # pulls and relative rates (mean 1) so that an alpha of 0.4 or of 0.6 would push one of the heads the other way
    pulls, rates = np.asarray([1.38, 0.6, 1.1, 0.92]), np.asarray([2.0, 0.25, 1.2, 0.55])
    norms, values = 10 * pulls / weights, 0.3 * rates * first
    slopes = np.random.default_rng(0).normal(size=(4, 7))
    slopes *= (norms / np.linalg.norm(slopes, axis=1))[:, None]
    balance = GradNorm(4)
    balance.weights.copy_(torch.from_numpy(weights))

    balance(heads(slopes, first, shared), shared)
    np.testing.assert_allclose(balance.weights, papers_step(weights, norms, first, first), rtol=1e-5)

    balance.weights.copy_(torch.from_numpy(weights))
    found = balance(heads(slopes, values, shared), shared)
    expected = papers_step(weights, norms, values, first)
    np.testing.assert_allclose(balance.weights, expected, rtol=1e-5)
    np.testing.assert_allclose([float(one) for one in found], expected * values, rtol=1e-5)
    assert all(part.grad is None for part in shared), "the step leaves the training's own gradients alone"


def test_gradnorm_turns_no_head_against_itself() -> None:
    shared, balance = [torch.ones(7, requires_grad=True)], GradNorm(2)
    slopes = np.ones((2, 7)) * [[1000.0], [1.0]]
    for _ in range(60):
        balance(heads(slopes, np.ones(2), shared), shared)
        assert float(balance.weights.min()) > 0
