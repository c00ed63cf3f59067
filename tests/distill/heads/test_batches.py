"""Boxes and masks go where a view moves pixels: seen on pictures that show their own labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.augment.chain import Augment, Chain
from edgekd.distill.augment.crop import PadCrop
from edgekd.distill.augment.flip import Flip
from edgekd.distill.heads.batches import chosen, follows, moved
from edgekd.distill.heads.targets import targets_of
from edgekd.tasks.rows import IGNORED
from edgekd.tasks.shapes import Shapes
from edgekd.teachers._protocol import View

TASK = Shapes(train=30, test=4, validation=4, calibration=4, side=32)
VIEWS = [Flip(), PadCrop(pad=5), Chain(views=(Flip(), PadCrop(pad=4)))]


@pytest.mark.parametrize("view", VIEWS, ids=["flip", "crop", "both"])
def test_labels_follow_the_pixels(view: View) -> None:
    labels = targets_of(TASK.spec, TASK.split("train").labels)
    pictures = (labels["mask"] + 1)[:, None].repeat(1, 3, 1, 1)  # a border of raw zeros comes from outside
    indices = np.arange(len(pictures))
    seen = view.pixels(pictures, indices, 7)[:, 0]  # type: ignore[attr-defined]  # of a view that moves pixels
    after = moved(TASK.spec, view, labels, indices, 7)
    assert torch.equal(torch.where(seen == 0, IGNORED, seen - 1), after["mask"])
    assert torch.equal(after["scene"], labels["scene"])
    for picture, things in zip(seen, after["things"], strict=True):
        for x1, y1, x2, y2, kind, ignored in things.tolist():
            if kind >= 0 and not ignored:
                inside = picture[int(y1) : int(y2), int(x1) : int(x2)]
                assert (inside == kind + 2).any()
    assert not torch.equal(after["things"], labels["things"])


@pytest.mark.parametrize("view", VIEWS, ids=["flip", "crop", "both"])
def test_boxes_follow_to_the_pixel(view: View) -> None:
    labels = targets_of(TASK.spec, TASK.split("train").labels)
    indices = np.arange(len(labels["mask"]))
    after = moved(TASK.spec, view, labels, indices, 7)
    looked = 0
    for at in indices:
        (before,), (now,) = (each["things"][at][labels["things"][at, :, 4] >= 0][:1] for each in (labels, after))
        whole = torch.equal(now[2:4] - now[:2], before[2:4] - before[:2])
        if whole and (labels["things"][at, :, 4] >= 0).sum() == 1:  # then it is what the mask shows
            shown = (after["mask"][at] != 0) & (after["mask"][at] != IGNORED)
            rows, columns = shown.any(1).nonzero(), shown.any(0).nonzero()
            assert now[:4].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            looked += not torch.equal(now, before)
    assert looked


def test_an_object_that_leaves_the_picture_is_passed_over() -> None:
    boxes = torch.tensor([[[0.0, 0, 4, 4, 1, 0], [10, 10, 20, 20, 0, 0]]])
    spec = TASK.spec.but(head=TASK.spec.more[0], more=())
    for seed in range(50):
        after = moved(spec, PadCrop(pad=6), {"things": boxes}, np.array([0]), seed)["things"][0]
        left = float((after[0, 2:4] - after[0, :2]).clamp_min(0).prod()) / 16
        assert (after[0, 4] == -1) == (left == 0)
        if left > 0:
            assert (after[0, 5] == 1) == (left < 0.4)
        assert after[1, 5] == 0


def test_other_views_are_known() -> None:
    class Blur:
        pass

    assert follows(None)
    assert all(map(follows, VIEWS))
    assert follows(Augment.model_validate({"colour": {"brightness": 0.2}, "noise": 0.1}).view(TASK.spec))
    assert not follows(Augment.model_validate({"rotate": 10}).view(TASK.spec))
    assert not follows(Augment.model_validate({"mixup": 0.2}).view(TASK.spec))
    assert not follows(Blur())  # type: ignore[arg-type]


def test_choosing_takes_every_head() -> None:
    labels = targets_of(TASK.spec, TASK.split("train").labels)
    some = chosen(labels, torch.tensor([3, 1]))
    assert not isinstance(some, torch.Tensor)
    assert torch.equal(some["mask"][0], labels["mask"][3])
