"""A project's recipe, varied and counted."""

from __future__ import annotations

from edgekd.compress.quantization.stage import Quantize
from edgekd.distill.generative.data_free import DataFree
from edgekd.distill.generative.gan_augment import GanAugment
from edgekd.distill.stage import Distill
from edgekd.recipes.born_again import BornAgain
from edgekd.recipes.layerwise import Layerwise
from edgekd.recipes.mutual import Mutual
from edgekd.search.recipe import epochs_of, images_of, shortened, shortened_to


def test_images_are_those_that_pass_through_training():
    assert images_of([Distill(epochs=3), Quantize(precision="int8")], 100) == 300
    assert images_of([BornAgain(epochs=3, generations=4)], 100) == 1200
    assert images_of([GanAugment(epochs=3, ratio=1.5)], 100) == 750
    assert images_of([DataFree(epochs=2, rounds=10, student_steps=5, batch_size=64)], 100) == 2 * 10 * 5 * 64


def test_a_shortened_recipe_trains_once_and_no_longer_than_asked():
    short = shortened([Distill(epochs=9), BornAgain(epochs=9, generations=3), Quantize(precision="int8")], 2)
    assert epochs_of(short) == 4
    assert isinstance(short[2], Quantize)


def test_a_recipe_cut_to_a_share_keeps_its_stages():
    """A finalist ships what it trained: with less time it trains the same way, for less long."""
    recipe = [
        Mutual(epochs=40, peers=2),
        BornAgain(epochs=10, generations=3),
        Layerwise(loss={"fitnet": {}}, epochs=10, join={"epochs": 40}),
        Quantize(precision="int8", train={"epochs": 8}),
    ]
    mutual, born, blocks, quantize = shortened_to(recipe, 0.5)
    assert mutual == recipe[0].but(epochs=20)
    assert born == recipe[1].but(epochs=5)
    assert (blocks.epochs, blocks.join.epochs) == (5, 20)
    assert quantize.passes == 4
    assert [stage.epochs for stage in shortened_to([Distill(epochs=2), Mutual(epochs=3)], 0.01)] == [1, 1]
