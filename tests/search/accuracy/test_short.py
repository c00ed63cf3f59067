"""Short training keeps the estimates' promises, and trains as short as it was asked to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.artefacts import Backend
from edgekd.distill.stage import Distill
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate, CompressionPlan
from edgekd.ir.space import Arch
from edgekd.search.accuracy.short import ShortTraining
from edgekd.search.recipe import epochs_of
from edgekd.students.resnet import ResNet
from edgekd.testing.contracts.accuracy import AccuracyContract, EstimateLife

RECIPE = (Distill.model_validate({"loss": {"ce": {}}, "epochs": 30, "batch_size": 32}),)
CANDIDATE = Candidate(
    family="resnet",
    arch=Arch.of({"width1": 8, "width2": 8, "width3": 8, "depth1": 1, "depth2": 1, "depth3": 1}),
    plan=CompressionPlan(precision=Precision.INT8),
    backend=Backend.model_validate("litert/xnnpack"),
)


@pytest.mark.slow
class TestShortTraining(AccuracyContract):
    @pytest.fixture
    def life(self, context_of: Callable[..., Any]) -> EstimateLife:
        return EstimateLife(ShortTraining(epochs=2), CANDIDATE, context_of(ResNet(), RECIPE))


@pytest.mark.slow
def test_trains_no_longer_than_asked(context_of: Callable[..., Any], tmp_path: Path) -> None:
    epochs = []
    from dataclasses import replace

    context = replace(
        context_of(ResNet(), RECIPE)(tmp_path), progress=lambda p: epochs.append((p.stage, p.total, p.note))
    )
    estimate = ShortTraining(epochs=3).estimate(CANDIDATE, context)
    assert any("epoch 3/3" in note for _, _, note in epochs)
    assert not any("/30" in note for _, _, note in epochs)
    assert estimate.images_per_s is not None
    assert estimate.images_per_s > 0


@pytest.mark.slow
def test_another_precision_trains_nothing_again(context_of: Callable[..., Any], tmp_path: Path) -> None:
    from dataclasses import replace

    stages: list[str] = []
    context = replace(context_of(ResNet(), RECIPE)(tmp_path), progress=lambda p: stages.append(p.stage))
    ShortTraining(epochs=2).estimate(CANDIDATE, context)
    assert "distill" in stages
    stages.clear()
    plain = CANDIDATE.but(plan=CompressionPlan(precision=Precision.DYNAMIC_INT8))
    ShortTraining(epochs=2).estimate(plain, context)
    assert "distill" not in stages


@pytest.mark.parametrize(
    ("images", "batch_size", "epochs"),
    [(50_000, None, 4), (1_167, None, 6), (624, 128, 40), (624, None, 6), (100, None, 29)],
)
def test_it_makes_two_hundred_steps_and_four_epochs_at_least(images, batch_size, epochs):
    recipe = [Distill(epochs=40, batch_size=batch_size)]
    short = ShortTraining().shortened(recipe, images)
    assert epochs_of(short) == epochs
    assert epochs_of(ShortTraining(epochs=3).shortened(recipe, images)) == 3
