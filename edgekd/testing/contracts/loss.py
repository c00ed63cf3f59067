"""Promises of every loss; subclass `LossContract` and override ``loss``.

- a scalar, finite, with a gradient for the student that finite differences agree with
- no gradient for the teacher, and no input changed
- the batch mean: a batch repeated twice has the same loss
- independent of the samples' order
- without a teacher it works, or says that it needs one, as ``needs_teacher`` declares
- equal options, read back from their JSON, are the same loss
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.distill.losses._protocol import Loss

__all__ = ["LossContract"]


class LossContract:
    """Run on a loss by overriding one fixture."""

    @pytest.fixture
    def loss(self) -> Loss:
        """The loss under test."""
        raise NotImplementedError("override the fixture `loss`")

    @pytest.fixture
    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Student's and teacher's logits (6, 5), float64, and labels."""
        generator = torch.Generator().manual_seed(1)
        student = torch.randn((6, 5), generator=generator, dtype=torch.float64, requires_grad=True)
        teacher = 3 * torch.randn((6, 5), generator=generator, dtype=torch.float64)
        return student, teacher, torch.tensor([0, 1, 2, 3, 4, 0])

    def test_is_a_finite_scalar(self, loss: Loss, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        value = loss(*batch)
        assert value.shape == ()
        assert torch.isfinite(value)

    def test_gradient_agrees_with_finite_differences(self, loss: Loss, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        student, teacher, labels = batch
        assert torch.autograd.gradcheck(lambda logits: loss(logits, teacher, labels), (student,))
        torch.autograd.backward(loss(*batch))
        assert student.grad is not None
        assert student.grad.abs().max() > 0

    def test_no_gradient_reaches_the_teacher(self, loss: Loss, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        student, teacher, labels = batch
        teacher.requires_grad_(True)
        torch.autograd.backward(loss(student, teacher, labels))
        assert teacher.grad is None

    def test_changes_no_input(self, loss: Loss, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        before = [tensor.detach().clone() for tensor in batch]
        loss(*batch)
        assert all(torch.equal(old, new) for old, new in zip(before, batch, strict=True))

    def test_is_a_batch_mean(self, loss: Loss, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        doubled = [torch.cat([tensor, tensor]) for tensor in batch]
        torch.testing.assert_close(loss(*doubled), loss(*batch))

    def test_order_of_samples_does_not_matter(self, loss: Loss, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        order = torch.tensor([3, 0, 5, 1, 4, 2])
        torch.testing.assert_close(loss(*(tensor[order] for tensor in batch)), loss(*batch))

    def test_teacher_is_needed_as_declared(self, loss: Loss, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        student, _, labels = batch
        if loss.needs_teacher:
            with pytest.raises(ValueError, match="teacher"):
                loss(student, None, labels)
        else:
            assert torch.isfinite(loss(student, None, labels))

    def test_options_survive_json(self, loss: Loss, batch: tuple[Tensor, Tensor, Tensor]) -> None:
        again = type(loss).model_validate_json(loss.model_dump_json())
        assert again == loss
        assert torch.equal(again(*batch), loss(*batch))
