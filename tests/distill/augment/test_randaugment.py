from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distill.augment.randaugment import _MOVING, OPERATIONS, RandAugment, _matrices
from edgekd.distill.augment.random import choices
from edgekd.distill.augment.warp import warped

NAMES = list(OPERATIONS)


@pytest.fixture
def levels():
    """Whole levels of a small range, so that equalizing has something to do."""
    return torch.randint(40, 120, (6, 3, 32, 32), generator=torch.Generator().manual_seed(0))


def applied(name, levels, strength):
    return (OPERATIONS[name](levels / 255, np.full(len(levels), strength)) * 255).round().long()


def test_the_papers_fourteen_operations():
    assert len(NAMES) == 14
    assert [NAMES[number] for number in _MOVING] == ["rotate", "shear-x", "shear-y", "translate-x", "translate-y"]


def test_identity(levels):
    assert torch.equal(applied("identity", levels, 1.0), levels)


@pytest.mark.parametrize("name", ["colour", "contrast", "brightness", "sharpness", "posterize"])
def test_no_strength_changes_nothing(levels, name):
    assert torch.equal(applied(name, levels, 0.0), levels)


def test_autocontrast_fills_the_range_of_each_channel(levels):
    levels[0, 0] = 7
    seen = applied("autocontrast", levels, 0.5)
    assert (seen[0, 0] == 7).all()
    assert (seen[1:].amin((2, 3)) == 0).all()
    assert (seen[1:].amax((2, 3)) == 255).all()


def equalized(channel):
    """One channel, level by level, as Pillow's ImageOps.equalize describes it."""
    counts = [int((channel == level).sum()) for level in range(256)]
    used = [count for count in counts if count]
    step = (sum(used) - used[-1]) // 255
    if not step:
        return channel
    table, total = [], step // 2
    for count in counts:
        table.append(min(total // step, 255))
        total += count
    return torch.tensor(table)[channel]


def test_equalize_counts_levels(levels):
    levels[0, 0] = 9
    levels[0, 1] = levels[0, 1] // 40
    seen = applied("equalize", levels, 0.5)
    for image, before in zip(seen, levels, strict=True):
        for channel, old in zip(image, before, strict=True):
            assert torch.equal(channel, equalized(old))


def test_posterize_keeps_high_bits(levels):
    assert torch.equal(applied("posterize", levels, -1.0), levels // 16 * 16)
    assert torch.equal(applied("posterize", levels, 0.5), levels // 4 * 4)


def test_solarize_turns_round_what_is_bright(levels):
    assert torch.equal(applied("solarize", levels, 1.0), 255 - levels)
    threshold = 255 * 0.7
    assert torch.equal(applied("solarize", levels, -0.3), torch.where(levels >= threshold, 255 - levels, levels))


@pytest.mark.parametrize("strength", [-1.0, 0.6])
def test_sharpness_blends_with_a_smoothed_image(levels, strength):
    kernel = torch.tensor([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    shares = levels / 255
    smooth = torch.nn.functional.conv2d(shares.flatten(0, 1)[:, None], kernel[None, None]).view(6, 3, 30, 30)
    middle = shares[:, :, 1:-1, 1:-1]
    expected = shares.clone()
    expected[:, :, 1:-1, 1:-1] = (smooth + (middle - smooth) * (1 + 0.9 * strength)).clamp(0, 1)
    torch.testing.assert_close(OPERATIONS["sharpness"](shares, np.full(6, strength)), expected)


def test_moves(levels):
    image = levels[:1].float()

    def moved(name, strength):
        return warped(image, _matrices(np.array([NAMES.index(name)]), np.array([strength]), (32, 32)))

    shift = 0.45 * 32
    whole = 10 / shift  # ten pixels
    torch.testing.assert_close(moved("translate-x", whole)[..., :22], image[..., 10:], rtol=0, atol=1e-2)
    torch.testing.assert_close(moved("translate-y", -whole)[:, :, 10:], image[:, :, :22], rtol=0, atol=1e-2)
    assert moved("translate-x", 1.0).eq(0).all(dim=2).sum() == 3 * 14
    # a shear of 0.3 moves rows 15.5 pixels from the centre by 4.65, columns not at all
    line = torch.zeros((1, 1, 32, 32))
    line[..., 15:17] = 1
    image = line
    sheared = moved("shear-x", 1.0)[0, 0]
    at = torch.arange(32.0) - 15.5
    centres = (sheared * at).sum(1) / sheared.sum(1)
    torch.testing.assert_close(centres, -0.3 * at, rtol=0, atol=0.05)
    image = line.transpose(2, 3)
    torch.testing.assert_close(moved("shear-y", 1.0)[0, 0], sheared.T)


def test_a_sample_goes_through_its_own_operations(make_spec, make_images):
    batch, indices = make_images(120, (3, 32, 32)), np.arange(120)
    seen = RandAugment(operations=1, magnitude=5).bound(make_spec())(batch, indices, 3)
    drawn = choices(3, "randaugment.0", indices, 14)
    signs = 2 * choices(3, "randaugment.0.direction", indices, 2) - 1
    assert set(drawn) == set(range(14))
    assert abs(np.bincount(choices(0, "randaugment.1", np.arange(14_000), 14)) - 1000).max() < 150
    for n in range(120):
        if drawn[n] in _MOVING:
            expected = warped(batch[n : n + 1], _matrices(drawn[n : n + 1], signs[n : n + 1] * 0.5, (32, 32))).round()
        else:
            expected = applied(NAMES[drawn[n]], batch[n : n + 1], signs[n] * 0.5)
        assert (seen[n].float() - expected[0].float()).abs().max() <= 1, NAMES[drawn[n]]  # halves may round either way


def test_raw_zeros_fill_where_zero_is_not_the_lowest(make_spec):
    spec = make_spec((1, 16, 16), raw_dtype="float32", raw_range=(-1.0, 1.0))
    seen = RandAugment(operations=2, magnitude=10).bound(spec)(torch.zeros((100, 1, 16, 16)), np.arange(100), 0)
    drawn = np.stack([choices(0, f"randaugment.{step}", np.arange(100), 14) for step in range(2)])
    moved_only = np.isin(drawn, [0, *_MOVING]).all(axis=0)
    assert moved_only.sum() > 5
    assert seen[moved_only].abs().max() < 1e-6


def test_signals_are_refused(make_spec):
    (problem,) = RandAugment().check(make_spec((1, 1, 800)))
    assert "is for images" in problem.message
    assert RandAugment().check(make_spec((1, 28, 28))) == []
