from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.augment.chain import Augment, Chain
from edgekd.distill.augment.crop import PadCrop
from edgekd.distill.augment.flip import Flip
from edgekd.distill.augment.random import choices, random_bits
from edgekd.records import digest_json
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

VIEWS = [Flip(), PadCrop(pad=2), Chain(views=(Flip(), PadCrop(pad=1)))]


def images(count=40, dtype=torch.uint8):
    return torch.randint(1, 256, (count, 3, 8, 6), generator=torch.Generator().manual_seed(0)).to(dtype)


def spec(flip):
    return TaskSpec(
        name="t", input=InputSpec(shape=(3, 32, 32)), head=HeadSpec(classes=2), data=digest_json("d"), flip=flip
    )


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: type(view).__name__)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_sample_depends_on_seed_and_index_alone(view, dtype):
    batch, indices = images(dtype=dtype), np.arange(40)
    whole = view(batch, indices, 5)
    assert whole.dtype == torch.float32
    order = np.array([7, 3, 31, 0])
    assert torch.equal(view(batch[order], indices[order], 5), whole[order])
    assert torch.equal(view(batch[31:32], indices[31:32], 5), whole[31:32])
    assert torch.equal(batch, images(dtype=dtype)), "the batch was changed"


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: type(view).__name__)
def test_another_seed_or_index_is_another_view(view):
    batch, indices = images(), np.arange(40)
    assert not torch.equal(view(batch, indices, 0), view(batch, indices, 1))
    assert not torch.equal(view(batch, indices, 0), view(batch, indices + 40, 0))


def test_crop_is_a_window_of_the_padded_image():
    batch, indices = images(), np.arange(40)
    found = PadCrop(pad=2)(batch, indices, 3)
    tops, lefts = choices(3, "crop.top", indices, 5), choices(3, "crop.left", indices, 5)
    padded = torch.nn.functional.pad(batch, (2, 2, 2, 2)).float()
    for n, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        assert torch.equal(found[n], padded[n, :, top : top + 8, left : left + 6])
    assert set(tops) == set(lefts) == set(range(5))


def test_flip_mirrors_about_half():
    batch, indices = images(400), np.arange(400)
    found = Flip()(batch, indices, 0)
    mirrored = sum(torch.equal(f, b.flip(-1).float()) for f, b in zip(found, batch, strict=True))
    same = sum(torch.equal(f, b.float()) for f, b in zip(found, batch, strict=True))
    assert mirrored + same == 400
    assert 150 < mirrored < 250


def test_random_numbers_are_the_same_on_every_machine():
    # fixed for ever: teachers' stored answers depend on it
    assert random_bits(7, "flip", np.array([0, 1])).tolist() == [1672628895419230332, 3628935255689229801]
    drawn = choices(1, "crop.top", np.arange(90_000), 9)
    assert abs(np.bincount(drawn, minlength=9) - 10_000).max() < 500
    together = drawn * 9 + choices(1, "crop.left", np.arange(90_000), 9)
    assert abs(np.bincount(together, minlength=81) - 1111).max() < 200


def test_options_follow_the_task():
    assert Augment().view(spec(flip=True)) == Chain(views=(Flip(), PadCrop(pad=4)))
    assert Augment().view(spec(flip=False)) == PadCrop(pad=4)
    assert Augment(crop=0).view(spec(flip=False)) is None
    assert [p.message.split(":")[0] for p in Augment(crop=32, flip=True).check(spec(flip=False))] == [
        "augment.crop",
        "augment.flip",
    ]
    assert Augment(crop=4, flip=True).check(spec(flip=True)) == []


def test_digests_tell_views_apart():
    assert len({view.digest() for view in [*VIEWS, PadCrop(pad=3)]}) == 4
