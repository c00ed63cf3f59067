"""Files of candidates before they are trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgekd.artefacts import Backend
from edgekd.compress.quantization.stage import Quantize
from edgekd.export._protocol import ConversionOutcome, ConversionResult, ExportOptions
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate, CompressionPlan
from edgekd.search.trials.untrained import UntrainedBuilder
from edgekd.students.resnet import ResNet
from edgekd.students.student import load_student
from edgekd.tasks.digits import Digits


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "in_float"),
    [((), ()), ((Quantize(keep_float=("head",)),), ("head:linear",))],
)
def test_a_trial_keeps_in_float_what_the_recipe_does(recipe: Any, in_float: tuple[str, ...], tmp_path: Path) -> None:
    task, family = Digits(train_limit=64), ResNet(stages=2)
    project: Any = SimpleNamespace(task=task, family=family, export=ExportOptions(), recipe=recipe)
    converter: Any = SimpleNamespace(
        convert=lambda *_: ConversionResult(outcome=ConversionOutcome.REFUSED, detail="not converted")
    )
    header: Any = SimpleNamespace(fingerprint=None, seed=0)
    candidate = Candidate(
        family="resnet",
        arch=family.space(task.spec).at(0),
        plan=CompressionPlan(precision=Precision.INT8),
        backend=Backend.model_validate("onnxruntime/cpu"),
    )
    builder = replace(UntrainedBuilder.of(project, converter, header), header=None)  # a header is for the file's facts
    assert builder.make(candidate, tmp_path / "model").detail == "not converted"
    assert load_student(tmp_path / "student").annotations.float_operators == in_float
