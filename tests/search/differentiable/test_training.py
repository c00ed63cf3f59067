from __future__ import annotations

import pytest

from edgekd.compress.quantization.stage import Quantize
from edgekd.distill.stage import Distill
from edgekd.errors import ConfigurationError
from edgekd.recipes.born_again import BornAgain
from edgekd.recipes.layerwise import Layerwise
from edgekd.search.differentiable.training import supernet_family, supernet_stage
from edgekd.students.own import Own

SOFT = Distill.model_validate({"loss": "kd", "epochs": 7})


def test_blocks_that_learn_features_do_not_train_the_choice():
    assert supernet_stage((Layerwise(), SOFT, Quantize(precision="int8"))) is SOFT
    assert supernet_stage((Layerwise(epochs=3),)).epochs == 3


def test_generations_are_one_training():
    stage = supernet_stage((BornAgain(epochs=5), SOFT))
    assert (type(stage), stage.epochs) == (Distill, 5)


def test_without_a_training_there_is_nothing_to_learn_by():
    with pytest.raises(ConfigurationError, match="no stage `distill`"):
        supernet_stage((Quantize(precision="int8"),))


def test_a_family_without_a_supernet_is_refused():
    with pytest.raises(ConfigurationError, match="family `own` can't be trained"):
        supernet_family(Own.model_construct())
