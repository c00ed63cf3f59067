"""Multilabel and regression labels (N, C): integers 0 and 1 are labels, floats are numbers.

The dtype decides. One-hot rows, which look like one class for each sample, are refused: they would get another loss and
score than intended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import ConfigurationError
from edgekd.tasks._protocol import HeadSpec, Rows
from edgekd.tasks.rows import ABSENT, LABEL_DTYPES

__all__ = ["LABELS", "NUMBERS", "array_error", "head_of", "vector_rows"]

LABELS, NUMBERS = "labels", "numbers"
"""Names of the head, its labels' field and its output."""

_MOST = 1e30  # float32 holds its square's root, and a deviation must be a number


def vector_rows(labels: NDArray[Any], where: str) -> Rows:
    """Return labels (N, C) in the layout of `rows`. -1 is an unknown label, NaN an unknown number.

    Raises ConfigurationError for integers other than 0, 1 and -1, for infinity, and for one-hot rows.
    """
    if labels.dtype == np.bool_:
        labels = labels.astype(np.int8)
    floats, found = np.issubdtype(labels.dtype, np.floating), f"labels are {labels.dtype} {labels.shape}"
    if not floats and not np.issubdtype(labels.dtype, np.integer):
        raise array_error(where, found, "give integers 0 and 1 for multilabel, floats for regression")
    if not floats and (odd := labels[(labels < ABSENT) | (labels > 1)]).size:
        remedy = "1 for a present label, 0 for an absent one, -1 for an unknown one; for regression give floats"
        raise array_error(where, f"{found}, and one of them is {odd[0]}", remedy)
    if floats and (np.abs(labels) > _MOST).any():
        raise array_error(
            where, f"{found}, and one of them is infinite or nearly so", "give NaN where a number isn't known"
        )
    if labels.shape[1] > 1 and np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all():
        raise array_error(where, f"{found}, each row with a single 1", "for one class a sample give labels.argmax(1)")
    if floats and not np.isnan(labels).all() and np.isin(labels[~np.isnan(labels)], (0, 1)).all():
        raise array_error(where, f"{found}, all of them 0 or 1", "for multilabel give integers")
    name, kind = (NUMBERS, LABEL_DTYPES["regression"]) if floats else (LABELS, LABEL_DTYPES["multilabel"])
    rows = np.empty(len(labels), [(name, kind, labels.shape[1:])])
    rows[name] = labels
    return rows


def head_of(train: Rows, names: Sequence[str], invariant: bool, what: str) -> HeadSpec:
    """Return the head for such training labels; mean and deviation of a number are theirs, six significant digits.

    Raises ConfigurationError if the count of ``names`` differs, or if a label is constant or unknown.
    """
    (field,) = train.dtype.names or ()
    values, count = train[field], train[field].shape[1]
    if names and len(names) != count:
        raise ConfigurationError.one(f"{what}: there are {len(names)} label names, and {count} labels", "name each")
    called = [f"`{name}`" for name in names] or [f"column {at} of the labels" for at in range(count)]
    if field == LABELS:
        for at, name in enumerate(called):
            known = set(np.unique(values[:, at]).tolist()) - {ABSENT}
            if len(known) < 2:
                found = f"is {known.pop()} in all training labels that are known" if known else "is known of no image"
                raise ConfigurationError.one(f"{what}: {name} {found}", "leave that column out")
        return HeadSpec(name=LABELS, kind="multilabel", classes=count, labels=tuple(names))
    means, stds = [], []
    for at, name in enumerate(called):
        known = values[:, at][~np.isnan(values[:, at])].astype(np.float64)
        if not len(known):
            raise ConfigurationError.one(f"{what}: {name} is NaN in all training labels", "leave that column out")
        if np.ptp(known) == 0:
            raise ConfigurationError.one(
                f"{what}: {name} is {known[0]:g} in all training labels", "leave that column out: there is no question"
            )
        means.append(float(f"{known.mean():.6g}"))
        stds.append(float(f"{known.std():.6g}"))
    return HeadSpec(
        name=NUMBERS,
        kind="regression",
        classes=count,
        labels=tuple(names),
        mean=tuple(means),
        std=tuple(stds),
        invariant=invariant,
    )


def array_error(where: str, found: str, expected: str) -> ConfigurationError:
    """Return the error of one array."""
    return ConfigurationError.one(f"{where}: {found}", expected)
