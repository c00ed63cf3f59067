"""One score for several heads."""

from __future__ import annotations

import pytest

from edgekd.errors import ConfigurationError
from edgekd.tasks.metrics.heads import metric_name, score_heads
from edgekd.tasks.shapes import Shapes
from edgekd.testing.contracts.task import perfect_answers

TASK = Shapes(train=40, test=10, validation=20, calibration=10, side=32)


@pytest.mark.slow
def test_the_mean_and_its_parts() -> None:
    labels = TASK.split("validation").labels
    answers = perfect_answers(TASK.spec, labels)
    answers["scene"] *= -1
    score = TASK.score(answers, labels)
    assert score.parts == pytest.approx({"scene top1": 0.0, "things mAP": 1.0, "mask mIoU": 1.0})
    assert score.value == pytest.approx(2 / 3)
    assert score.metric == TASK.spec.metric.name == "mean of top1, mAP, mIoU"
    assert metric_name(TASK.spec.heads[1:2]) == "mAP"


def test_samples_without_a_label_are_not_scored_by_that_head() -> None:
    labels = TASK.split("validation").labels.copy()
    answers = perfect_answers(TASK.spec, labels)
    answers["scene"][5:] *= -1
    labels["scene"][5:] = -1
    assert TASK.score(answers, labels).parts["scene top1"] == 1.0
    labels["scene"] = -1
    with pytest.raises(ConfigurationError, match="none of 20 has a label for `scene`"):
        score_heads(TASK.spec.heads, answers, labels)
