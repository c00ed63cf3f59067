from __future__ import annotations

import numpy as np
import torch

from edgekd.distill.generative.bank import Bank, to_bytes, to_raw
from edgekd.tasks._protocol import InputSpec

SPEC = InputSpec(shape=(1, 8, 8), raw_range=(0.0, 16.0))


def shades(*values):
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8) * (16 / 255)


def test_keeps_the_last_and_never_more():
    bank = Bank(SPEC, 5)
    assert len(bank) == 0
    bank.add(shades(1, 2, 3))
    assert len(bank) == 3
    bank.add(shades(4, 5, 6, 7))
    assert len(bank) == 5
    assert sorted(bank.codes[:, 0, 0, 0].tolist()) == [3, 4, 5, 6, 7]
    bank.add(shades(*range(10, 22)))
    assert sorted(bank.codes[:, 0, 0, 0].tolist()) == [17, 18, 19, 20, 21]


def test_draws_different_images_that_are_there():
    bank = Bank(SPEC, 50)
    bank.add(shades(*range(20)))
    places = bank.draw(8)
    assert len(set(places.tolist())) == 8
    assert places.max() < 20
    assert len(bank.draw(64)) == 20


def test_a_byte_a_value_is_within_half_a_step():
    raw = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 16
    again = to_raw(to_bytes(raw, SPEC), SPEC)
    assert np.abs(again - raw).max() <= 16 / 255 / 2 + 1e-5
    assert to_bytes(torch.tensor([-1.0, 0.0, 16.0, 99.0]), SPEC).tolist() == [0, 0, 255, 255]
