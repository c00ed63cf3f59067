"""Average precision and R^2 against numpy, where something isn't known, and where an answer is no number."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import ConfigurationError
from edgekd.tasks._protocol import HeadSpec
from edgekd.tasks.metrics.heads import score_heads
from edgekd.tasks.metrics.multilabel import macro_average_precision
from edgekd.tasks.metrics.regression import coefficient_of_determination, mean_absolute_errors
from edgekd.testing.contracts.task import perfect_answers
from edgekd.testing.fakes.spots import NUMBERS, SpotTask

RNG = np.random.default_rng(0)


def precision_of(scores: np.ndarray, labels: np.ndarray) -> float:
    """By hand: the mean, over what is there, of the precision at its rank."""
    ranked = labels[np.argsort(-scores)]
    hits = np.flatnonzero(ranked)
    return float(np.mean([(at + 1) / (place + 1) for at, place in enumerate(hits)]))


def test_average_precision_is_the_mean_over_labels_that_somebody_has() -> None:
    labels = RNG.integers(-1, 2, (40, 4)).astype(np.int8)
    labels[:, 3] = 0
    answers = RNG.normal(size=(40, 4))
    each = [precision_of(answers[k, at], labels[k, at]) for at in range(3) if (k := labels[:, at] >= 0).any()]
    assert macro_average_precision(answers, labels) == pytest.approx(np.mean(each))
    with pytest.raises(ValueError, match="nothing to score"):
        macro_average_precision(answers, np.zeros_like(labels))
    with pytest.raises(ValueError, match="match"):
        macro_average_precision(answers[:, :2], labels)


def test_an_answer_that_is_no_number_ranks_where_it_harms() -> None:
    labels, answers = np.asarray([[1], [1], [0], [0]]), np.asarray([[4.0], [3.0], [2.0], [1.0]])
    assert macro_average_precision(answers, labels) == 1.0
    for place in range(4):
        broken = answers.copy()
        broken[place] = np.nan
        assert macro_average_precision(broken, labels) < 1.0


def test_r2_and_absolute_error_of_what_is_known() -> None:
    labels = RNG.normal([5, -1, 0], [2, 0.1, 1], (30, 3))
    answers = labels + RNG.normal(0, 0.3, labels.shape)
    labels[:, 2] = 7.0
    labels[RNG.random(labels.shape) < 0.2] = np.nan
    each, errors = [], []
    for at in range(3):
        k = ~np.isnan(labels[:, at])
        y, f = labels[k, at], answers[k, at]
        errors.append(np.abs(y - f).mean())
        if at < 2:
            each.append(1 - ((y - f) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    assert coefficient_of_determination(answers, labels) == pytest.approx(np.mean(each))
    np.testing.assert_allclose(mean_absolute_errors(answers, labels), errors)
    answers[0] = np.nan
    assert coefficient_of_determination(answers, labels) < -1
    with pytest.raises(ValueError, match="nothing to score"):
        coefficient_of_determination(answers, np.full_like(labels, 2.0))


def test_heads_are_scored_together_and_errors_reported_in_their_units() -> None:
    task = SpotTask()
    labels = task.split("test").labels
    rows = perfect_answers(task.spec, labels)
    rows["numbers"][:, 0] += 30
    score = task.score(rows, labels)
    assert score.metric == "mean of macro AP, R2"
    assert set(score.parts) == {"labels macro AP", "numbers R2"}
    assert score.errors["numbers 0 MAE"] == pytest.approx(30, rel=1e-3)
    assert score.errors["numbers 1 MAE"] == pytest.approx(0, abs=1e-6)
    named = score_heads([NUMBERS.but(labels=("light", "spread"))], rows, labels)
    assert not named.parts
    assert set(named.errors) == {"light MAE", "spread MAE"}


@pytest.mark.parametrize(
    ("head", "label", "said"),
    [
        (
            HeadSpec(name="numbers", kind="regression", classes=1, mean=(0.0,), std=(1.0,)),
            7.0,
            "every number is the same",
        ),
        (HeadSpec(name="labels", kind="multilabel", classes=1), 0, "no sample has any of the labels"),
    ],
)
def test_too_few_labels_to_score_are_an_error_that_says_what_to_do(head: HeadSpec, label: float, said: str) -> None:
    rows = np.zeros(1, [(head.name, np.float32 if head.kind == "regression" else np.int8, (1,))])
    rows[head.name] = label
    with pytest.raises(ConfigurationError, match=said) as caught:
        score_heads([head], rows.astype([(head.name, np.float32, (1,))]), rows)
    assert "give more samples for validation and for the test" in str(caught.value.problems)
