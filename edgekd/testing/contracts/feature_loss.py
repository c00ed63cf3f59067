"""Promises of every loss on inner activations; subclass `FeatureLossContract` and override ``loss``.

- a scalar, finite, with a gradient for the student that finite differences agree with
- no input changed
- the batch mean: a batch repeated twice has the same loss
- independent of the samples' order
- in eval mode nothing in the criterion changes
- parameters and buffers survive a state dict: a criterion filled from another one's answers alike
- equal options, read back from their JSON, are the same loss

A loss that can't keep one of them overrides that test and says why in its docstring.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from edgekd.distill.losses._protocol import FeatureLoss, Site
from edgekd.distill.losses.criterion import Batch, Criterion
from edgekd.students.points import Point

__all__ = ["FeatureLossContract"]

Inputs = tuple[list[Tensor], list[Tensor], Batch]


class FeatureLossContract:
    """Run on a feature loss by overriding ``loss``; ``site`` too where it needs other points."""

    @pytest.fixture
    def loss(self) -> FeatureLoss:
        """The loss under test."""
        raise NotImplementedError("override the fixture `loss`")

    @pytest.fixture
    def site(self) -> Site:
        """Two pairs of maps whose channels and resolutions differ; five classes, twelve training samples."""
        pairs = (((3, 4, 4), (4, 8, 8)), ((4, 2, 2), (5, 4, 4)))
        return Site(
            pairs=tuple(
                (Point(name=f"s{at}", shape=student), Point(name=f"t{at}", shape=teacher))
                for at, (student, teacher) in enumerate(pairs)
            ),
            samples=12,
            classes=5,
        )

    @pytest.fixture
    def criterion(self, loss: FeatureLoss, site: Site) -> Criterion:
        """Set up with fixed weights, float64, in eval mode."""
        assert loss.problem(site) == ""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return loss.criterion(site).double().eval()

    @pytest.fixture
    def inputs(self, site: Site) -> Inputs:
        """Activations of six samples, float64, and the batch."""
        generator = torch.Generator().manual_seed(1)

        def drawn(shape: Sequence[int]) -> Tensor:
            return torch.randn((6, *shape), generator=generator, dtype=torch.float64)

        student = [drawn(own.shape).requires_grad_() for own, _ in site.pairs]
        teacher = [2 * drawn(other.shape) for _, other in site.pairs]
        labels = torch.arange(6) % site.classes
        return student, teacher, Batch(torch.tensor([4, 0, 7, 2, 9, 11]), labels)

    def test_is_a_finite_scalar(self, criterion: Criterion, inputs: Inputs) -> None:
        value = criterion(*inputs)
        assert value.shape == ()
        assert torch.isfinite(value)

    def test_gradient_agrees_with_finite_differences(self, criterion: Criterion, inputs: Inputs) -> None:
        student, teacher, batch = inputs
        assert torch.autograd.gradcheck(lambda *own: criterion(own, teacher, batch), student)
        torch.autograd.backward(criterion(*inputs))
        assert any(own.grad is not None and own.grad.abs().max() > 0 for own in student)

    def test_changes_no_input(self, criterion: Criterion, inputs: Inputs) -> None:
        student, teacher, batch = inputs
        before = [tensor.detach().clone() for tensor in (*student, *teacher, batch.indices, batch.labels)]
        criterion(*inputs)
        after = (*student, *teacher, batch.indices, batch.labels)
        assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))

    def test_is_a_batch_mean(self, criterion: Criterion, inputs: Inputs) -> None:
        student, teacher, batch = inputs
        twice = Batch(torch.cat([batch.indices] * 2), torch.cat([batch.labels] * 2))
        doubled = criterion([torch.cat([own] * 2) for own in student], [torch.cat([o] * 2) for o in teacher], twice)
        torch.testing.assert_close(doubled, criterion(*inputs))

    def test_order_of_samples_does_not_matter(self, criterion: Criterion, inputs: Inputs) -> None:
        student, teacher, batch = inputs
        order = torch.tensor([3, 0, 5, 1, 4, 2])
        other = Batch(batch.indices[order], batch.labels[order])
        turned = criterion([own[order] for own in student], [hint[order] for hint in teacher], other)
        torch.testing.assert_close(turned, criterion(*inputs))

    def test_nothing_changes_in_eval_mode(self, criterion: Criterion, inputs: Inputs) -> None:
        before = {name: tensor.clone() for name, tensor in criterion.state_dict().items()}
        criterion(*inputs)
        assert all(torch.equal(before[name], tensor) for name, tensor in criterion.state_dict().items())

    def test_state_survives(self, loss: FeatureLoss, site: Site, criterion: Criterion, inputs: Inputs) -> None:
        criterion.train()
        criterion(*inputs)
        criterion.eval()
        again = loss.criterion(site).double()
        again.load_state_dict(criterion.state_dict())
        assert torch.equal(again.eval()(*inputs), criterion(*inputs))

    def test_options_survive_json(self, loss: FeatureLoss) -> None:
        assert type(loss).model_validate_json(loss.model_dump_json()) == loss
