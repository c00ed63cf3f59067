"""Contract of a Teacher that is bound to a task:

- logits are finite float32 (N, classes) and can take part in a loss, without a gradient of their own;
- where its network can be looked into, it says what the teacher says, and gradients go through it to the images;
- a sample's answer does not depend on its neighbours in the batch, nor on what was asked before;
- uint8 and float32 batches of the same values get the same answers, and neither is changed;
- the digest is 64 hexadecimal digits, the same for two teachers made alike;
- a task with other classes is refused in words that name both.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from edgekd.errors import ConfigurationError
from edgekd.tasks._protocol import TaskSpec
from edgekd.teachers._protocol import OpenTeacher, Teacher
from edgekd.teachers.binding import bind

__all__ = ["TeacherContract"]


class TeacherContract:
    """Subclass it, override ``make_teacher`` and ``spec``, and pytest runs every check on your teacher."""

    @pytest.fixture
    def make_teacher(self) -> Callable[[], Teacher]:
        """A function that makes the same teacher each time, not yet bound."""
        raise NotImplementedError("override the fixture `make_teacher`")

    @pytest.fixture
    def spec(self) -> TaskSpec:
        """A task the teacher fits, with raw values that are whole numbers from 0 to at most 255."""
        raise NotImplementedError("override the fixture `spec`")

    @pytest.fixture
    def teacher(self, make_teacher: Callable[[], Teacher], spec: TaskSpec) -> Teacher:
        """Bound to the task."""
        return bind(make_teacher(), spec)

    @pytest.fixture
    def batch(self, spec: TaskSpec) -> Tensor:
        """Five different raw-unit samples."""
        low, high = spec.input.raw_range
        generator = torch.Generator().manual_seed(0)
        return torch.randint(int(low), int(high) + 1, (5, *spec.input.shape), generator=generator).float()

    def test_logits_are_finite_float32(self, teacher: Teacher, spec: TaskSpec, batch: Tensor) -> None:
        answers = teacher.logits(batch)
        assert answers.shape == (5, spec.head.classes)
        assert answers.dtype == torch.float32
        assert torch.isfinite(answers).all()
        assert teacher.classes == spec.head.classes
        assert teacher.name

    def test_answers_differ_between_samples(self, teacher: Teacher, batch: Tensor) -> None:
        answers = teacher.logits(batch)
        assert not torch.allclose(answers[0], answers[1])

    def test_logits_take_part_in_a_loss(self, teacher: Teacher, batch: Tensor) -> None:
        answers = teacher.logits(batch)
        assert not answers.requires_grad
        student = torch.zeros_like(answers, requires_grad=True)
        (gradient,) = torch.autograd.grad((student * answers).sum(), [student])  # refuses an inference tensor
        assert torch.equal(gradient, answers)

    def test_gradients_go_through_an_open_network(self, teacher: Teacher, batch: Tensor) -> None:
        teacher.logits(batch)
        if isinstance(teacher, OpenTeacher):  # which others may have made in inference mode
            images = batch.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(teacher.network()(teacher.prepared(images)).sum(), [images])
            assert torch.isfinite(gradient).all()

    def test_an_open_network_says_what_the_teacher_says(self, teacher: Teacher, batch: Tensor) -> None:
        logits = teacher.logits(batch)
        if isinstance(teacher, OpenTeacher):
            with torch.inference_mode():
                rows = teacher.rows(teacher.network()(teacher.prepared(batch)))
            assert rows.dtype == torch.float32
            assert torch.allclose(rows, logits, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("size", [1, 2, 5])
    def test_neighbours_do_not_matter(self, teacher: Teacher, batch: Tensor, size: int) -> None:
        together = teacher.logits(batch)
        assert torch.allclose(teacher.logits(batch[:size]), together[:size], rtol=1e-4, atol=1e-4)
        assert torch.allclose(teacher.logits(batch), together, rtol=1e-4, atol=1e-4)

    def test_raw_types_are_alike_and_left_alone(self, teacher: Teacher, batch: Tensor) -> None:
        before = batch.clone()
        assert torch.allclose(teacher.logits(batch), teacher.logits(batch.to(torch.uint8)), rtol=1e-4, atol=1e-4)
        assert torch.equal(batch, before)

    def test_digest_is_an_identity(self, make_teacher: Callable[[], Teacher], spec: TaskSpec) -> None:
        one, two = bind(make_teacher(), spec), bind(make_teacher(), spec)
        assert re.fullmatch("[0-9a-f]{64}", one.digest())
        assert one.digest() == two.digest()

    def test_other_classes_are_refused(self, make_teacher: Callable[[], Teacher], spec: TaskSpec) -> None:
        wrong = spec.but(head=spec.head.but(classes=spec.head.classes + 1, labels=()))
        with pytest.raises(ConfigurationError) as caught:
            bind(make_teacher(), wrong)
        assert str(spec.head.classes) in str(caught.value)
        assert str(spec.head.classes + 1) in str(caught.value)
