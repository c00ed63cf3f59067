"""Raw units to what a model was trained on."""

from __future__ import annotations

import pytest
import torch

from edgekd.errors import ConfigurationError
from edgekd.tasks.normalisation import check_pair
from edgekd.teachers.normalise import normalised


def test_one_value_or_one_a_channel():
    batch = torch.full((1, 2, 1, 1), 10, dtype=torch.uint8)
    assert normalised(batch, (4.0,), (2.0,)).flatten().tolist() == [3.0, 3.0]
    assert normalised(batch, (4.0, 8.0), (2.0, 1.0)).flatten().tolist() == [3.0, 2.0]


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(ConfigurationError, match="3 values, and the input has 2"):
        normalised(torch.zeros(1, 2, 1, 1), (1.0, 2.0, 3.0), (1.0,))


@pytest.mark.parametrize(("mean", "std"), [((1.0,), None), (None, (1.0,)), ((1.0,), (0.0,)), ((1.0,), ())])
def test_halves_and_zeros_are_refused(mean, std):
    with pytest.raises(ValueError, match=r"both|above zero"):
        check_pair(mean, std)
