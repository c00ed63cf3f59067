from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from edgekd.distill.augment.chain import Augment
from edgekd.distill.augment.cutmix import CutMix
from edgekd.distill.augment.mixing import partners
from edgekd.distill.augment.mixup import MixUp
from edgekd.tasks._protocol import HeadSpec
from edgekd.testing.fakes.spots import LABELS, NUMBERS

ALL = np.arange(300)
EARLIER = {"crop": 2, "flip": True, "rotate": 10}


@pytest.fixture
def inputs(make_images):
    return make_images(300, (3, 32, 32))


@pytest.fixture
def labels():
    return torch.arange(300) % 10


def test_mixup_is_the_weighted_mean_of_two_views(make_spec, inputs, labels):
    earlier, view = (Augment.model_validate(o).view(make_spec()) for o in (EARLIER, {**EARLIER, "mixup": 0.4}))
    seen, targets, partner = view(inputs, ALL, 7), view.targets(labels, ALL, 7, 10), partners(7, ALL, 300)
    share = torch.from_numpy(MixUp(alpha=0.4).shares(ALL, 7))
    s = share[:, None, None, None]
    own, other = earlier(inputs, ALL, 7).float(), earlier(inputs, partner, 7).float()
    assert torch.equal(seen, s * own + (1 - s) * other)
    for n in range(300):
        expected = torch.zeros(10)
        expected[labels[n]] += share[n]
        expected[labels[partner[n]]] += 1 - share[n]
        torch.testing.assert_close(targets[n], expected)


def test_mixup_shares_are_beta():
    shares = MixUp(alpha=0.3).shares(np.arange(5000), 1)
    assert stats.kstest(shares, stats.beta(0.3, 0.3).cdf).pvalue > 0.01


def test_cutmix_share_is_the_share_of_pixels(make_spec, inputs, labels):
    earlier, view = (Augment.model_validate(o).view(make_spec()) for o in (EARLIER, {**EARLIER, "cutmix": 1.0}))
    seen, targets, partner = view(inputs, ALL, 7), view.targets(labels, ALL, 7, 10), partners(7, ALL, 300)
    assert seen.dtype == torch.uint8
    own, other = earlier(inputs, ALL, 7), earlier(inputs, partner, 7)
    for n in range(300):
        if labels[n] == labels[partner[n]]:
            continue
        agrees = (seen[n] == own[n]).all(0)
        assert torch.equal(seen[n][:, ~agrees], other[n][:, ~agrees])
        rows, columns = torch.where(~agrees)
        inside = len(rows) and (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        # a pixel or two in the box may be alike in both, black corners above all
        assert int(targets[n, labels[partner[n]]] * 1024 + 0.5) >= int((~agrees).sum())
        if len(rows) and not (own[n] == other[n]).all(0).any():
            assert targets[n, labels[partner[n]]].item() == pytest.approx(float(inside) / 1024)


@pytest.mark.slow
def test_cutmix_boxes_are_as_large_as_lambda_says(make_spec):
    # with a centre anywhere, half a box is cut off at worst each way: the mean share is known from the paper's rule
    shares = CutMix(alpha=1.0).bound(make_spec((3, 200, 200))).shares(np.arange(3000), 0)
    rng = np.random.default_rng(0)
    root, centres = np.sqrt(rng.uniform(size=(200_000, 1))), rng.uniform(size=(200_000, 2))
    kept = np.clip(centres + root / 2, 0, 1) - np.clip(centres - root / 2, 0, 1)
    assert stats.ks_2samp(shares, 1 - kept.prod(axis=1)).pvalue > 0.01


def test_where_both_are_written_each_sample_takes_one(make_spec, inputs, labels):
    spec = make_spec()
    both, mixup, cutmix = (
        Augment.model_validate({**EARLIER, **dict.fromkeys(names, 1.0)}).view(spec)
        for names in (["mixup", "cutmix"], ["mixup"], ["cutmix"])
    )
    seen, targets = both(inputs, ALL, 0), both.targets(labels, ALL, 0, 10)
    assert seen.dtype == torch.float32
    taken = []
    for view in (mixup, cutmix):
        pixels = (seen == view(inputs, ALL, 0).float()).flatten(1).all(1)
        assert torch.equal(targets[pixels], view.targets(labels, ALL, 0, 10)[pixels])
        taken.append(pixels)
    assert (taken[0] | taken[1]).all()
    assert 110 < taken[0].sum() < 190


def test_partners_are_any_samples():
    drawn = partners(0, np.arange(50_000), 10)
    assert np.bincount(drawn).min() > 4700
    assert (partners(0, np.arange(50), 300) != np.arange(50)).any()


def test_only_classes_labels_and_numbers_can_be_shared(make_spec):
    spec = make_spec()
    things = HeadSpec(name="things", kind="detection", classes=2, objects=3)
    scene = HeadSpec(name="scene", classes=2)
    for view in (MixUp(), CutMix()):
        assert view.check(spec) == []
        assert view.check(spec.but(head=LABELS)) == []
        for heads in ((things,), (LABELS, things)):
            (problem,) = view.check(spec.but(head=heads[0], more=heads[1:]))
            assert "head `things`" in problem.message
            assert "is detection" in problem.message
        assert view.check(spec.but(head=scene, more=(LABELS,))), "one of several heads has one class a sample"
    assert MixUp().check(spec.but(head=NUMBERS, more=(LABELS,))) == []
    assert CutMix().check(spec.but(head=NUMBERS))


def test_cutmix_is_for_images(make_spec):
    (problem,) = CutMix().check(make_spec((1, 1, 800)))
    assert "is for images" in problem.message
    assert MixUp().check(make_spec((1, 1, 800))) == []
