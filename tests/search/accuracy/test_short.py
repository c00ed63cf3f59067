"""How long the training that ranks candidates is."""

from __future__ import annotations

import pytest

from edgekd.distill.stage import Distill
from edgekd.search.accuracy.short import ShortTraining
from edgekd.search.recipe import epochs_of


@pytest.mark.parametrize(
    ("images", "batch_size", "epochs"),
    [(50_000, None, 4), (1_167, None, 6), (624, 128, 40), (624, None, 6), (100, None, 29)],
)
def test_it_makes_two_hundred_steps_and_four_epochs_at_least(images, batch_size, epochs):
    recipe = [Distill(epochs=40, batch_size=batch_size)]
    short = ShortTraining().shortened(recipe, images)
    assert epochs_of(short) == epochs
    assert epochs_of(ShortTraining(epochs=3).shortened(recipe, images)) == 3
