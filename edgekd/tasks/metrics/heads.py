"""Score of several heads: the mean of their own metrics, which are reported too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from edgekd.errors import ConfigurationError
from edgekd.tasks._protocol import HeadKind, HeadSpec, Rows, Score
from edgekd.tasks.metrics.detection import mean_average_precision
from edgekd.tasks.metrics.multilabel import macro_average_precision
from edgekd.tasks.metrics.regression import coefficient_of_determination, mean_absolute_errors
from edgekd.tasks.metrics.segmentation import mean_intersection_over_union
from edgekd.tasks.rows import has_label
from edgekd.tasks.score import top1

__all__ = ["METRICS", "metric_name", "score_heads"]

METRICS: Mapping[HeadKind, str] = {
    "classification": "top1",
    "segmentation": "mIoU",
    "detection": "mAP",
    "multilabel": "macro AP",
    "regression": "R2",
}


def metric_name(heads: Sequence[HeadSpec]) -> str:
    """Return the name of the score of these heads."""
    names = [METRICS[head.kind] for head in heads]
    return names[0] if len(names) == 1 else f"mean of {', '.join(names)}"


def score_heads(heads: Sequence[HeadSpec], outputs: Rows, labels: Rows) -> Score:
    """Score outputs (N,) against labels (N,), in the layout of `rows`.

    A sample without a head's label isn't scored by that head. For regression the mean absolute error is reported too.
    Raises ValueError if shapes don't match, and ConfigurationError if a head has no labelled sample, or none by which
    its metric is defined.
    """
    if len(heads) == 1 and heads[0].kind == "classification":
        return top1(outputs, labels)
    fields = (outputs.dtype.names or (), labels.dtype.names or ())
    if len(outputs) != len(labels) or not all(head.name in fields[1] for head in heads) or not fields[0]:
        raise ValueError(f"outputs {len(outputs)} {fields[0]} don't match labels {len(labels)} {fields[1]}")
    parts = {f"{head.name} {METRICS[head.kind]}": _score(head, outputs, labels) for head in heads}
    value = float(np.mean(list(parts.values())))
    return Score(
        metric=metric_name(heads),
        value=value,
        samples=len(labels),
        parts=parts if len(parts) > 1 else {},
        errors={name: error for head in heads for name, error in _errors(head, outputs, labels)},
    )


def _errors(head: HeadSpec, outputs: Rows, labels: Rows) -> Iterator[tuple[str, float]]:
    if head.kind != "regression":
        return
    for place, error in enumerate(mean_absolute_errors(outputs[head.name], labels[head.name])):
        name = head.labels[place] if head.labels else head.name if head.classes == 1 else f"{head.name} {place}"
        if np.isfinite(error):
            yield f"{name} MAE", error


def _score(head: HeadSpec, outputs: Rows, labels: Rows) -> float:
    known = has_label(head, labels[head.name])
    if not known.any():
        raise ConfigurationError.one(
            f"there are no samples to score: none of {len(labels)} has a label for `{head.name}`",
            "label some for validation and some for the test, or leave this head out",
        )
    true = labels[head.name][known]
    if head.kind == "classification":
        return top1(outputs[head.name][known], true).value
    if head.kind == "segmentation":
        return mean_intersection_over_union(outputs[head.name][known], true, head.classes)
    if head.kind in ("multilabel", "regression"):
        by = macro_average_precision if head.kind == "multilabel" else coefficient_of_determination
        try:
            return by(outputs[head.name][known], true)
        except ValueError as error:
            raise ConfigurationError.one(
                f"`{head.name}` of {len(true)} labelled samples: {error}",
                "give more samples for validation and for the test, with different labels",
            ) from error
    boxes, scores, kinds = (outputs[f"{head.name}.{part}"][known] for part in ("boxes", "scores", "classes"))
    return mean_average_precision(boxes, scores, kinds, true, head.classes)
