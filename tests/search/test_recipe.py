"""A project's recipe, varied and counted."""

from __future__ import annotations

from edgekd.compress.quantization.stage import Quantize
from edgekd.distill.generative.data_free import DataFree
from edgekd.distill.generative.gan_augment import GanAugment
from edgekd.distill.stage import Distill
from edgekd.recipes.born_again import BornAgain
from edgekd.search.recipe import epochs_of, images_of, shortened


def test_images_are_those_that_pass_through_training():
    assert images_of([Distill(epochs=3), Quantize(precision="int8")], 100) == 300
    assert images_of([BornAgain(epochs=3, generations=4)], 100) == 1200
    assert images_of([GanAugment(epochs=3, ratio=1.5)], 100) == 750
    assert images_of([DataFree(epochs=2, rounds=10, student_steps=5, batch_size=64)], 100) == 2 * 10 * 5 * 64


def test_a_shortened_recipe_trains_once_and_no_longer_than_asked():
    short = shortened([Distill(epochs=9), BornAgain(epochs=9, generations=3), Quantize(precision="int8")], 2)
    assert epochs_of(short) == 4
    assert isinstance(short[2], Quantize)
