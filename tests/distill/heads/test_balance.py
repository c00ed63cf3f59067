"""What heads are worth beside each other."""

from __future__ import annotations

import math

import pytest
import torch

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
