from __future__ import annotations

from typing import Any

import pytest
from ruamel.yaml import YAML

from edgekd.bundle.card import card_text
from edgekd.store.certificate import Certificate
from edgekd.tasks._protocol import HeadSpec, InputSpec, MetricSpec, SoundSpec, TextSpec
from edgekd.testing.fakes.spots import LABELS, NUMBERS


def block(text: str) -> dict[str, Any]:
    """The fields of a card's front matter, as a reader of the Hub gets them."""
    opening, fields, rest = text.split("---\n", 2)
    assert opening == ""
    assert rest.startswith("\n# ")
    read: dict[str, Any] = YAML(typ="safe", pure=True).load(fields)
    return read


def test_the_card_begins_with_what_the_hub_reads(certificate: Certificate) -> None:
    fields = block(card_text(certificate))
    assert fields["library_name"] == "tflite"
    assert fields["pipeline_tag"] == "image-classification"
    assert set(fields["tags"]) == {"edgekd", "tflite", "float32"}
    assert fields["metrics"] == ["accuracy"]
    assert not {"license", "model-index"} & set(fields), "edgekd knows neither the licence nor a data set of the Hub"


def test_another_metric_is_not_called_accuracy(certificate: Certificate) -> None:
    task = certificate.task.but(metric=MetricSpec(name="agreement"))
    assert "metrics" not in block(card_text(certificate.but(task=task)))


TEXT = InputSpec(shape=(16,), raw_dtype="int32", text=TextSpec(vocabulary=9, padding=0, tokenizer="0" * 64))
SOUND = InputSpec(shape=(1, 800), raw_dtype="float32", sound=SoundSpec(rate=8000, samples=800))
SIGNAL = InputSpec(shape=(2, 800), raw_dtype="float32")


@pytest.mark.parametrize(
    ("changes", "pipeline"),
    [
        ({"input": TEXT}, "text-classification"),
        ({"input": SOUND}, "audio-classification"),
        ({"input": SIGNAL}, None),
        ({"head": HeadSpec(kind="segmentation", classes=3)}, "image-segmentation"),
        ({"head": HeadSpec(kind="detection", classes=3, objects=4)}, "object-detection"),
        ({"head": LABELS, "more": (NUMBERS,)}, None),
    ],
)
def test_a_task_has_the_hubs_name_or_none(
    certificate: Certificate, changes: dict[str, Any], pipeline: str | None
) -> None:
    fields = block(card_text(certificate.but(task=certificate.task.but(**changes))))
    assert fields.get("pipeline_tag") == pipeline


def test_labels_are_listed_by_name(certificate: Certificate) -> None:
    assert "| labels | round, flat, other |" in card_text(certificate)
    many = HeadSpec(classes=30, labels=tuple(f"kind {index}" for index in range(30)))
    text = card_text(certificate.but(task=certificate.task.but(head=many)))
    assert "kind 18, kind 19 and 10 more: see `preprocess.json` |" in text
    piped = certificate.task.but(head=HeadSpec(classes=2, labels=("a|b", "c")))
    assert r"| labels | a\|b, c |" in card_text(certificate.but(task=piped))
