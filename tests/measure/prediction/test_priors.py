"""A short table starts from the nearest other one: its own kind first, then its own device, then the fullest."""

from __future__ import annotations

import pytest

from edgekd.ir.numerics import Precision
from edgekd.measure.prediction.priors import choose_prior, observations_of, prior_words
from edgekd.testing.fakes.device import fake_fingerprint
from tests.measure.prediction.test_predict import LITERT, ORT, table

HERE, BEFORE = fake_fingerprint(), fake_fingerprint().but(governor="powersave")
PI = fake_fingerprint().but(cpu="another")
INT8 = Precision.INT8


def nearest(*tables):
    return choose_prior(LITERT, INT8, "board", HERE, tables)


def on(count, backend, precision, fingerprint=HERE, device="board"):
    return table(count, backend, precision).but(fingerprint=fingerprint, device=device)


@pytest.mark.parametrize(
    ("nearer", "farther"),
    [
        (on(24, LITERT, INT8, PI, "pi"), on(40, ORT, INT8)),  # its own kind, wherever that was
        (on(24, LITERT, INT8, BEFORE), on(40, LITERT, INT8, PI, "pi")),
        (on(24, ORT, INT8), on(40, ORT, INT8, BEFORE)),
        (on(24, ORT, INT8, BEFORE), on(40, ORT, INT8, PI, "pi")),
        (on(40, LITERT, INT8, PI, "pi"), on(24, LITERT, INT8, PI, "other")),
    ],
)
def test_nearest_first(nearer, farther):
    assert nearest(nearer, farther) == nearest(farther, nearer) == nearer


def test_none_is_its_own_or_too_short():
    assert nearest(on(40, LITERT, INT8), on(23, LITERT, INT8, BEFORE), on(23, ORT, INT8)) is None


def test_it_is_named_as_somebody_sees_it():
    deployment = "litert/xnnpack int8"
    assert prior_words(deployment, "pi", "board") == "litert/xnnpack int8 of pi"
    assert prior_words(deployment, "board", "board") == "litert/xnnpack int8 of board in another state"
    assert prior_words(deployment, "board", "board", here=True) == deployment


def test_of_a_long_table_the_newest_count():
    rows = table(7).rows * 50
    assert len(observations_of(rows)) == 300
    assert observations_of(rows)[-1].memory_bytes == rows[-1].memory_bytes
