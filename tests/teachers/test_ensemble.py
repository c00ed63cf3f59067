"""Several teachers averaged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgekd.teachers.binding import bind
from edgekd.teachers.ensemble import EnsembleTeacher
from edgekd.teachers.torch import TorchTeacher
from edgekd.testing.contracts.teacher import TeacherContract


@pytest.fixture
def members(options):
    """The same network with two normalisations: two different teachers."""
    return [{"kind": "torch", **options}, {"kind": "torch", **options, "mean": [10.0], "std": [100.0]}]


@pytest.fixture
def make(teacher_folder, members):
    return lambda **changes: EnsembleTeacher.model_validate(
        {"members": members} | changes, context={"folder": teacher_folder}
    )


class TestEnsemble(TeacherContract):
    @pytest.fixture
    def spec(self, small_spec):
        return small_spec

    @pytest.fixture
    def make_teacher(self, make):
        return make


class TestProbabilities(TeacherContract):
    @pytest.fixture
    def spec(self, small_spec):
        return small_spec

    @pytest.fixture
    def make_teacher(self, make):
        return lambda: make(average="probabilities", weights=[1, 3])


@pytest.fixture
def answers(members, teacher_folder, spec):
    batch = torch.rand(3, 3, 8, 8) * 255
    found = []
    for member in members:
        options = {key: value for key, value in member.items() if key != "kind"}
        found.append(bind(TorchTeacher.model_validate(options, context={"folder": teacher_folder}), spec).logits(batch))
    return batch, found


def test_logits_are_averaged_by_weight(make, spec, answers):
    batch, (one, two) = answers
    assert torch.allclose(bind(make(), spec).logits(batch), (one + two) / 2, atol=1e-5)
    assert torch.allclose(bind(make(weights=[1, 3]), spec).logits(batch), (one + 3 * two) / 4, atol=1e-5)


def test_probabilities_are_averaged_by_weight(make, spec, answers):
    batch, (one, two) = answers
    found = bind(make(average="probabilities", weights=[1, 3]), spec).logits(batch)
    assert torch.allclose(found.softmax(1), (one.softmax(1) + 3 * two.softmax(1)) / 4, atol=1e-5)


def shares(weights, logits):
    """The formula of the docstring, in numpy: (members, N)."""
    exponents = np.exp(logits - logits.max(2, keepdims=True))
    chances = exponents / exponents.sum(2, keepdims=True)
    entropy = -(chances * np.log(np.maximum(chances, 1e-300))).sum(2)
    weighed = np.array(weights)[:, None] * np.exp(-entropy)
    return weighed / weighed.sum(0), chances


class Fixed:
    """Answers with given logits, whatever it is asked."""

    def __init__(self, answers):
        self.answers = torch.from_numpy(answers).float()

    def logits(self, batch):
        return self.answers


@pytest.mark.parametrize("weights", [[1, 1], [1, 3]])
def test_a_confident_member_has_the_larger_share(make, weights):
    logits = np.random.default_rng(0).normal(size=(2, 6, 4)) * np.array([0.1, 1, 9, 9, 1, 0.1]).reshape(6, 1)
    logits[1] = logits[1, ::-1] * np.array([1, 9, 1, 0.1, 1, 9]).reshape(6, 1)
    share, chances = shares(weights, logits)
    assert share[0].min() < 0.4
    assert share[0].max() > 0.7 or weights != [1, 1]
    for average, taken in (("logits", logits), ("probabilities", chances)):
        ensemble = make(weights=weights, weighting="confidence", average=average)
        ensemble._teachers = tuple(map(Fixed, logits))
        averaged = ensemble.logits(torch.zeros(6, 3, 8, 8))
        averaged = averaged.exp() if average == "probabilities" else averaged
        np.testing.assert_allclose(averaged.numpy(), (share[:, :, None] * taken).sum(0), rtol=1e-4, atol=1e-5)


class TestConfidence(TeacherContract):
    @pytest.fixture
    def spec(self, small_spec):
        return small_spec

    @pytest.fixture
    def make_teacher(self, make):
        return lambda: make(weighting="confidence")


def test_a_member_that_is_certain_keeps_the_answer_finite(make, spec):
    ensemble = make(weighting="confidence", average="probabilities")
    answers = bind(ensemble, spec).logits(torch.full((2, 3, 8, 8), 1e6))
    assert torch.isfinite(answers).all()


def test_digest_depends_on_members_weights_and_average(make, spec, members):
    digests = {
        bind(teacher, spec).digest()
        for teacher in (
            make(),
            make(weights=[1, 3]),
            make(average="probabilities"),
            make(members=members[::-1]),
            make(weighting="confidence"),
        )
    }
    assert len(digests) == 5


def test_members_are_checked_when_read(make, members):
    with pytest.raises(ValidationError, match="3 weights for 2 members"):
        make(weights=[1, 2, 3])
    with pytest.raises(ValidationError, match="needs its `kind`"):
        make(members=[{"module": "x:y"}, members[0]])
    with pytest.raises(ValidationError, match="no teacher `torhc`"):
        make(members=[{**members[0], "kind": "torhc"}, members[0]])
    with pytest.raises(ValidationError, match="no such file"):
        make(members=[{**members[0], "weights": "gone.npz"}, members[0]])


def test_it_survives_being_written_and_read(make, spec):
    ensemble = make()
    again = EnsembleTeacher.model_validate(ensemble.model_dump(mode="json"))
    assert bind(again, spec).digest() == bind(ensemble, spec).digest()
