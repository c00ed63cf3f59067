from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from edgekd.distill.losses.ce import CrossEntropy
from edgekd.distill.losses.combined import Combined
from edgekd.distill.losses.kd import KD


def weights(options):
    return {name: loss.weight for name, loss in Combined.model_validate(options).parts}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"kd": {"temperature": 4, "weight": 0.9}}, {"ce": 0.1, "kd": 0.9}),
        ({"kd": {}}, {"ce": 0.1, "kd": 0.9}),
        ({"kd": {"weight": 1}}, {"kd": 1.0}),
        ({"kd": {"weight": 0.7}, "ce": {"label_smoothing": 0.1}}, {"ce": 0.3, "kd": 0.7}),
        ({"kd": {"weight": 2}, "ce": {"weight": 3}}, {"ce": 3.0, "kd": 2.0}),
        ({"ce": {}}, {"ce": 1.0}),
        ({"ce": None}, {"ce": 1.0}),
        ("ce", {"ce": 1.0}),
    ],
)
def test_weights(options, expected):
    assert weights(options) == expected


def test_is_the_weighted_sum():
    generator = torch.Generator().manual_seed(0)
    batch = (torch.randn((4, 3), generator=generator), torch.randn((4, 3), generator=generator), torch.arange(4) % 3)
    combined = Combined.model_validate({"kd": {"temperature": 2, "weight": 0.9}})
    expected = 0.9 * KD(temperature=2)(*batch) + 0.1 * CrossEntropy()(*batch)
    torch.testing.assert_close(combined(*batch), expected)


def test_needs_a_teacher_only_where_one_is_looked_at():
    assert Combined.model_validate("kd").needs_teacher
    assert not Combined.model_validate("ce").needs_teacher
    assert not Combined.model_validate({"kd": {"weight": 0}, "ce": {}}).needs_teacher


def test_survives_json():
    combined = Combined.model_validate({"kd": {"temperature": 3}})
    assert Combined.model_validate(combined.model_dump(mode="json")) == combined


@pytest.mark.parametrize(
    ("options", "place", "words"),
    [
        ({"kd": {"temperatur": 4}}, ("kd", "temperatur"), "not permitted"),
        ({"kd": {"temperature": 0}}, ("kd", "temperature"), "greater than 0"),
        ({"kdd": {}}, ("kdd",), "did you mean `kd`"),
        ({4: {}}, ("4",), "no loss `4`"),
        ({"kd": {"weight": 1}, "ce": {}}, (), "nothing is left for ce"),
        ({"kd": {"weight": None}, "ce": {}}, (), "at most one"),
        ({"kd": {"weight": 0}, "ce": {"weight": 0}}, (), "nothing to learn"),
        ({}, (), "{kd: {weight: 0.9}}"),
        ({"kd": {"weight": {"from": 0, "to": 1}}, "ce": {"weight": 0}}, (), "when 0% of the training is done, every"),
        ({"kd": {"weight": {"from": 1, "to": 0}}, "ce": {"weight": 0}}, (), "when 100% of the training is done, every"),
        (
            {
                "kd": {"weight": {"from": 1, "to": 0, "end": 0.4}},
                "ce": {"weight": {"from": 0, "to": 1, "start": 0.7}},
            },
            (),
            "when 40% of the training is done, every",
        ),
    ],
)
def test_mistakes_name_their_place(options, place, words):
    with pytest.raises(ValidationError) as caught:
        Combined.model_validate(options)
    (line,) = caught.value.errors()
    assert line["loc"] == place
    assert words in line["msg"]


@pytest.mark.parametrize(
    "options",
    [
        {"kd": {"weight": {"from": 0, "to": 1}}},
        {"kd": {"weight": {"from": 1, "to": 0}}, "ce": {"weight": {"from": 0, "to": 1}}},
        {"kd": {"weight": {"from": 1, "to": 0}}, "fitnet": {}, "ce": {"weight": 0}},
    ],
)
def test_weights_that_are_never_all_zero_are_fine(options):
    combined = Combined.model_validate(options)
    for progress in (0.0, 0.5, 1.0):
        assert any(loss.weight for _, loss in combined.at(progress).parts)


def test_what_a_package_calls_a_loss_has_to_be_one(monkeypatch):
    monkeypatch.setattr("edgekd.plugins.load", lambda group, name: max)
    with pytest.raises(ValidationError, match="mine is neither a Loss nor a FeatureLoss"):
        Combined.model_validate({"mine": {}})


def test_all_mistakes_at_once():
    with pytest.raises(ValidationError) as caught:
        Combined.model_validate({"kd": {"temperature": -1, "wait": 1}, "what": {}})
    assert {line["loc"] for line in caught.value.errors()} == {("kd", "temperature"), ("kd", "wait"), ("what",)}
