"""A loss whose numbers change while a student trains."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from edgekd.distill.losses.ce import CrossEntropy
from edgekd.distill.losses.dkd import DKD
from edgekd.distill.losses.kd import KD
from edgekd.distill.losses.mlkd import MLKD
from edgekd.distill.losses.rkd import RKD
from edgekd.distill.schedule import Ramp


def test_begins_with_the_ramps_first_value():
    loss = KD.model_validate({"temperature": {"from": 8, "to": 2}})
    assert loss.temperature == 8
    assert loss.schedule == {"temperature": Ramp(from_=8, to=2)}


@pytest.mark.parametrize(("progress", "temperature"), [(0.0, 8), (0.25, 6.5), (0.5, 5), (1.0, 2)])
def test_is_in_between_on_the_way(progress, temperature):
    loss = KD.model_validate({"temperature": {"from": 8, "to": 2}}).at(progress)
    assert loss == KD(temperature=temperature)


def test_stands_still_before_its_start_and_after_its_end():
    ramp = {"from": 1, "to": 0, "start": 0.2, "end": 0.6, "shape": "cosine"}
    loss = KD.model_validate({"weight": ramp})
    found = [loss.at(progress).weight for progress in (0.0, 0.1, 0.4, 0.6, 1.0)]
    assert found == pytest.approx([1, 1, 0.5, 0, 0])


def test_a_ramp_of_no_length_is_a_step():
    loss = KD.model_validate({"temperature": {"from": 8, "to": 2, "start": 0.5, "end": 0.5}})
    assert [loss.at(progress).temperature for progress in (0.49, 0.51, 1.0)] == [8, 2, 2]


def test_any_number_changes_several_at_once_too():
    loss = DKD.model_validate({"alpha": {"from": 0, "to": 2}, "beta": {"from": 8, "to": 4}, "weight": 0.25})
    assert loss.at(0.5) == DKD(alpha=1, beta=6, weight=0.25)


def test_of_a_loss_on_activations_the_weight_changes():
    """Its criterion is set up once, from the numbers of the beginning."""
    assert RKD.model_validate({"weight": {"from": 1, "to": 0}}).at(0.5) == RKD(weight=0.5)
    with pytest.raises(ValidationError, match="angle can't change"):
        RKD.model_validate({"weight": {"from": 1, "to": 0}, "angle": {"from": 0, "to": 50}})


def test_without_a_schedule_it_is_itself():
    loss = KD()
    assert loss.at(0.7) is loss


def test_the_value_is_that_of_the_number_then():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn((4, 3), generator=generator) for _ in range(2))
    labels = torch.zeros(4, dtype=torch.int64)
    ramped = KD.model_validate({"temperature": {"from": 8, "to": 2}})
    torch.testing.assert_close(ramped.at(1)(student, teacher, labels), KD(temperature=2)(student, teacher, labels))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (KD, {"standardize": {"from": 0, "to": 1}}, "`standardize` is not a number"),
        (RKD, {"points": {"from": 0, "to": 1}}, "points"),
        (MLKD, {"temperatures": {"from": 8, "to": 2}}, "temperatures"),
        (KD, {"warmth": {"from": 8, "to": 2}}, "warmth"),
        (KD, {"schedule": {"warmth": {"from": 8, "to": 2}}}, "`warmth` is not a number"),
        (KD, {"schedule": {"standardize": {"from": 0, "to": 1}}}, "`standardize` is not a number"),
        (KD, {"schedule": {"schedule": {"from": 0, "to": 1}}}, "`schedule` is not a number"),
        (MLKD, {"schedule": {"temperatures": {"from": 8, "to": 2}}}, "`temperatures` is not a number"),
    ],
)
def test_only_numbers_change(kind, options, message):
    with pytest.raises(ValidationError, match=message):
        kind.model_validate(options)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (KD, {"temperature": {"from": 8, "to": 0}}, "temperature ends at 0: .*greater than 0"),
        (KD, {"temperature": {"from": -1, "to": 2}}, "temperature\n.*greater than 0"),
        (KD, {"weight": {"from": 1, "to": -1}}, "weight ends at -1: "),
        (CrossEntropy, {"label_smoothing": {"from": 0, "to": 1}}, "label_smoothing ends at 1: .*less than 1"),
        (KD, {"temperature": {"from": 8, "to": 2, "start": 0.7, "end": 0.3}}, "starts at 0.7 .* ends at 0.3"),
        (KD, {"temperature": {"from": 8, "to": 2, "end": 1.5}}, "less than or equal to 1"),
        (KD, {"temperature": {"from": 8}}, "to\n.*[Rr]equired"),
        (KD, {"temperature": {"from": 8, "to": 2, "shape": "square"}}, "linear"),
        (KD, {"temperature": {"from": 8, "to": 2, "until": 3}}, "until"),
        (KD, {"temperature": {"from": "warm", "to": 2}}, "temperature"),
    ],
)
def test_a_bad_ramp_is_refused(kind, options, message):
    with pytest.raises(ValidationError, match=message):
        kind.model_validate(options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (KD, {"temperature": {"from": 8, "to": 2, "start": 0.1, "shape": "cosine"}, "weight": {"from": 1, "to": 0.5}}),
        (CrossEntropy, {"weight": {"from": 0, "to": 1}}),
        (RKD, {"weight": {"from": 0, "to": 1}}),
    ],
)
def test_survives_json(kind, options):
    loss = kind.model_validate(options)
    again = kind.model_validate_json(loss.model_dump_json())
    assert again == loss
    assert again.digest() == loss.digest()
    assert again.at(0.3) == loss.at(0.3)
    assert loss.but(weight=loss.weight) == loss


def test_a_value_beside_its_ramp_is_refused():
    with pytest.raises(ValidationError, match="temperature changes from 8: leave out its other value"):
        KD.model_validate({"temperature": 4, "schedule": {"temperature": {"from": 8, "to": 2}}})


@pytest.mark.parametrize("schedule", [None, 3, ["temperature"]])
def test_a_schedule_that_is_no_mapping_is_refused(schedule):
    with pytest.raises(ValidationError, match="schedule"):
        KD.model_validate({"temperature": {"from": 8, "to": 2}, "schedule": schedule})
