"""Files of candidates before they are trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from edgekd.artefacts import Backend
from edgekd.compress.quantization.stage import Quantize
from edgekd.export._protocol import ConversionOutcome, ConversionResult, ExportOptions
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate, CompressionPlan
from edgekd.search.trials import untrained
from edgekd.search.trials.untrained import UntrainedBuilder
from edgekd.students.fold import folded
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


@pytest.mark.slow
def test_an_arch_is_folded_once_for_all_deployments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, family, kept = Digits(train_limit=64), ResNet(stages=2), list[str]()
    monkeypatch.setattr(untrained, "folded", lambda student: (kept.append(str(student.arch)), folded(student))[1])
    converter: Any = SimpleNamespace(
        convert=lambda *_: ConversionResult(outcome=ConversionOutcome.REFUSED, detail="not converted")
    )
    project: Any = SimpleNamespace(task=task, family=family, export=ExportOptions(), recipe=())
    header: Any = SimpleNamespace(fingerprint=None, seed=0)

    def builder() -> UntrainedBuilder:
        return replace(UntrainedBuilder.of(project, converter, header), header=None)

    space, shared, archs = family.space(task.spec), builder(), []
    for number, precision in ((1, Precision.FLOAT32), (1, Precision.INT8), (0, Precision.INT8)):
        arch = space.at(number)
        plan = CompressionPlan(precision=precision)
        candidate = Candidate(family="resnet", arch=arch, plan=plan, backend=Backend.model_validate("onnxruntime/cpu"))
        shared.make(candidate, tmp_path / f"shared-{number}-{precision.value}" / "model")
        archs.append(str(arch))
    assert kept == [archs[0], archs[2]]
    assert archs[0] != archs[2]
    builder().make(candidate.but(arch=space.at(1)), tmp_path / "alone" / "model")
    alone, other = (load_student(tmp_path / name / "student") for name in ("alone", "shared-1-int8"))
    assert alone.annotations == other.annotations
    pairs = zip(alone.module.state_dict().items(), other.module.state_dict().items(), strict=True)
    assert all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)
