from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgekd import plugins
from edgekd.distill.augment._protocol import PixelAugmentation
from edgekd.distill.augment.chain import Augment, Chain
from edgekd.distill.augment.colour import Colour
from edgekd.distill.augment.crop import PadCrop
from edgekd.distill.augment.cutmix import CutMix
from edgekd.distill.augment.flip import Flip
from edgekd.distill.augment.mixing import Mixed
from edgekd.distill.augment.mixup import MixUp
from edgekd.distill.augment.noise import Noise
from edgekd.distill.augment.resized_crop import ResizedCrop
from edgekd.distill.augment.rotate import Rotate
from edgekd.records import canonical_json

EVERYTHING = {
    "crop": 4,
    "flip": True,
    "rotate": 15,
    "colour": {"brightness": 0.4, "hue": 0.1},
    "randaugment": {"operations": 2, "magnitude": 9},
    "erase": 0.25,
    "mixup": 0.2,
    "cutmix": 1.0,
}


def read(options):
    return Augment.model_validate(options)


def kinds(view):
    return [type(part) for part in getattr(view, "views", (view,))]


def test_options_follow_the_task(make_spec):
    assert Augment().view(make_spec(flip=True)) == Chain(views=(Flip(), PadCrop(pad=4)))
    assert Augment().view(make_spec(flip=False)) == PadCrop(pad=4)
    assert read({"crop": 0}).view(make_spec(flip=False)) is None
    assert read({"crop": 0, "flip": False}).view(make_spec()) is None
    assert read({"crop": None, "flip": None}) == Augment()
    assert [p.message.split(":")[0] for p in read({"crop": 32, "flip": True}).check(make_spec(flip=False))] == [
        "augment.crop",
        "augment.flip",
    ]
    assert read({"crop": 4, "flip": True}).check(make_spec(flip=True)) == []


@pytest.mark.parametrize("shape", [(1, 1, 800), (2, 800)])
def test_signals_are_neither_cropped_nor_mirrored_unasked(make_spec, shape):
    assert Augment().view(make_spec(shape)) is None
    assert kinds(read({"noise": {"snr_db": 20}}).view(make_spec(shape))) == [Noise]


# what edgekd 0.1 computed: teachers' stored answers and finished stages are found by these
@pytest.mark.parametrize(
    ("options", "stored", "flip", "digest"),
    [
        ({}, '{"crop":null,"flip":null}', True, "bb8122ef7810f66a2038da5633daa97830fdfa35ed16f11f24c0b720b66f963f"),
        ({}, '{"crop":null,"flip":null}', False, "fb763acc0dfca01b9934a7aedce48e9e52333812591dc08003474d38b92fd04c"),
        (
            {"crop": 0},
            '{"crop":0,"flip":null}',
            True,
            "da9db90092fd045ffcbd27d5939441a2d9b3b46169d5079ebff1b5731dd6a36c",
        ),
        (
            {"crop": 4, "flip": True},
            '{"crop":4,"flip":true}',
            True,
            "bb8122ef7810f66a2038da5633daa97830fdfa35ed16f11f24c0b720b66f963f",
        ),
        (
            {"flip": False},
            '{"crop":null,"flip":false}',
            True,
            "fb763acc0dfca01b9934a7aedce48e9e52333812591dc08003474d38b92fd04c",
        ),
    ],
)
def test_crop_and_flip_are_known_by_what_they_were(make_spec, options, stored, flip, digest):
    augment = read(options)
    assert canonical_json(augment.model_dump(mode="json")) == stored
    assert augment.view(make_spec(flip=flip)).digest() == digest


def test_the_stage_has_the_key_it_had():
    assert Augment().digest() == "f51d58adc97fed713234fad46d5a8ac3c100bf27a317d650380ecf398ad388d6"


def test_views_follow_each_other_as_written(make_spec):
    assert kinds(read({"rotate": 15, "colour": {"hue": 0.1}}).view(make_spec())) == [Flip, PadCrop, Rotate, Colour]
    assert kinds(read({"colour": {"hue": 0.1}, "crop": 2, "rotate": 15}).view(make_spec())) == [
        Flip,
        Colour,
        PadCrop,
        Rotate,
    ]
    assert kinds(read({"rotate": 15, "flip": True}).view(make_spec())) == [PadCrop, Rotate, Flip]
    mixed = read({"mixup": 0.3, "rotate": 5, "cutmix": 1.0}).view(make_spec())
    assert isinstance(mixed, Mixed)
    assert kinds(mixed.earlier) == [Flip, PadCrop, Rotate]
    assert mixed.ways == (MixUp(alpha=0.3), CutMix(alpha=1.0).bound(make_spec()))


def test_a_resized_crop_takes_the_place_of_the_crop(make_spec):
    assert kinds(read({"resized_crop": 0.3}).view(make_spec())) == [Flip, ResizedCrop]
    assert kinds(read({"resized_crop": 0.3, "crop": 2}).view(make_spec())) == [Flip, ResizedCrop, PadCrop]
    assert kinds(read({"resized_crop": False}).view(make_spec())) == [Flip, PadCrop]


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ({"rotate": 15}, {"rotate": {"degrees": 15}}),
        ({"resized_crop": [0.3, 0.9]}, {"resized_crop": {"area": [0.3, 0.9]}}),
        ({"mixup": True}, {"mixup": {"alpha": 0.2}}),
        ({"mixup": None}, {"mixup": {}}),
        ({"mixup": 0, "erase": False}, {}),
        ({"crop": 3}, {"crop": {"pad": 3}}),
    ],
)
def test_short_forms(short, full):
    assert read(short) == read(full)


def test_everything_survives_json(make_spec):
    augment = read(EVERYTHING)
    stored = canonical_json(augment.model_dump(mode="json"))
    again = read(json.loads(stored))
    assert again == augment
    assert again.view(make_spec()).digest() == augment.view(make_spec()).digest()
    assert read({"flip": False, "rotate": 3}).but() == read(read({"flip": False, "rotate": 3}).model_dump(mode="json"))


def test_the_order_is_part_of_the_digest(make_spec):
    one, two = read({"rotate": 15, "erase": 0.2}), read({"erase": 0.2, "rotate": 15})
    assert one.digest() != two.digest()
    assert one.view(make_spec()).digest() != two.view(make_spec()).digest()


def test_views_with_the_same_options_have_digests_of_their_own(make_spec):
    class Turn(Rotate):
        pass

    digests = {Chain(views=(Flip(), view)).digest() for view in (Rotate(degrees=3), Turn(degrees=3))}
    assert len(digests) == 2
    one, two = (read({name: 0.5}).view(make_spec()).digest() for name in ("mixup", "cutmix"))
    assert one != two
    bytes_, tenths = (read({"noise": 0.1}).view(make_spec(raw_range=r)).digest() for r in ((0, 255), (0, 10)))
    assert bytes_ != tenths


def test_a_chain_is_its_views_one_after_the_other(make_spec, make_images):
    batch, indices = make_images(40, (3, 32, 32)), np.arange(40)
    chain = Chain(views=(Rotate(degrees=20), Flip(), PadCrop(pad=2)))
    expected = batch
    for view in chain.views:
        expected = view(expected, indices, 9)
    assert torch.equal(chain(batch, indices, 9), expected)


@pytest.mark.parametrize(
    ("options", "place", "words"),
    [
        ({"rotat": 15}, ("rotat",), "did you mean `rotate`"),
        ({"rotate": {"degrees": 15, "degree": 15}}, ("rotate", "degree"), "not permitted"),
        ({"rotate": -3}, ("rotate",), "greater than 0"),
        ({"rotate": "far"}, ("rotate",), "valid number"),
        ({"rotate": {}}, ("rotate", "degrees"), "required"),
        ({"crop": -1}, ("crop",), "greater than 0"),
        ({"colour": {}}, ("colour",), "give brightness"),
        ({"flip": "left"}, ("flip",), "true, false or its options"),
        ({"colour": 0.4}, ("colour",), "true, false or its options (brightness, contrast, saturation, hue)"),
        ([{"rotate": 3}, {"rotate": 4}], (1, "rotate"), "written twice"),
        (7, (), "{crop: 4, rotate: 15}"),
        (None, (), "{crop: 4, rotate: 15}"),
    ],
)
def test_mistakes_name_their_place(options, place, words):
    with pytest.raises(ValidationError) as caught:
        read(options)
    (line,) = caught.value.errors()
    assert line["loc"] == place
    assert words in line["msg"]


def test_all_mistakes_at_once():
    with pytest.raises(ValidationError) as caught:
        read({"rotate": -1, "erase": {"probability": 2, "areas": 1}, "what": 3})
    assert {line["loc"] for line in caught.value.errors()} == {
        ("rotate",),
        ("erase", "probability"),
        ("erase", "areas"),
        ("what",),
    }


def test_every_view_is_asked_about_the_task(make_spec):
    found = read(EVERYTHING).check(make_spec((1, 1, 8), flip=False))
    assert [problem.message.split(":")[0] for problem in found] == [
        f"augment.{name}" for name in EVERYTHING if name != "mixup"
    ]
    assert read(EVERYTHING).check(make_spec()) == []


class Inverted(PixelAugmentation):
    def pixels(self, batch, indices, seed):
        return 255 - batch


def test_a_strangers_view_comes_in_by_its_entry_point(monkeypatch, make_spec, make_images):
    known = {"inverted": Inverted, "other": Augment}
    monkeypatch.setattr(plugins, "load", lambda group, name: known[name])
    batch = make_images(shape=(3, 32, 32))
    view = read({"inverted": True}).view(make_spec(flip=False))
    assert kinds(view) == [PadCrop, Inverted]
    assert torch.equal(view.views[1](batch, np.arange(40), 0), 255 - batch)
    assert Inverted().identity()["view"].endswith("test_chain.Inverted")  # not to be taken for one of ours
    with pytest.raises(ValidationError, match="neither a PixelAugmentation nor a MixingAugmentation"):
        read({"other": {}})
