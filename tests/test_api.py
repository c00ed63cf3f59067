"""What is told before anything is opened or trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd import api
from edgekd.errors import ConfigurationError, MissingError
from edgekd.events import SilentEvents
from edgekd.project import read_project

PROJECT = """\
schema: edgekd.project/1
task: {kind: digits}
teacher: {kind: train}
student: {family: resnet}
target: meter
recipe: [distill]
"""
TARGET = """\
schema: edgekd.target/1
device: this-computer
backends: [litert/xnnpack]
budgets: {BUDGET}
"""


@pytest.mark.parametrize(
    ("budget", "named"),
    [
        ("energy: {per_inference: 60 mJ}", "energy.per_inference <= 60 mJ"),
        ("power: {average: 2 W}", "power.average <= 2 W"),
    ],
)
def test_a_budget_nobody_can_measure_is_refused_at_once(tmp_path: Path, budget: str, named: str) -> None:
    (tmp_path / "project.yaml").write_text(PROJECT)
    (tmp_path / "meter.yaml").write_text(TARGET.replace("BUDGET", budget))
    with pytest.raises(MissingError, match=named):
        api.search(tmp_path / "project.yaml", run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_compress_wants_a_family_that_starts_from_a_model(tmp_path: Path) -> None:
    (tmp_path / "project.yaml").write_text(PROJECT)
    (tmp_path / "meter.yaml").write_text(TARGET.replace("budgets: {BUDGET}", ""))
    with pytest.raises(ConfigurationError, match="the family `resnet` trains from nothing"):
        api.compress(tmp_path / "project.yaml", run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_does_not_fit_is_told_with_its_file(tmp_path: Path) -> None:
    shapes = "{kind: shapes, train: 8, test: 2, validation: 2, calibration: 2, side: 32}"
    text = PROJECT.replace("{kind: digits}", shapes).replace(
        "{kind: train}", "{kind: heads, of: {thngs: {kind: train}}}"
    )
    (tmp_path / "project.yaml").write_text(text)
    (tmp_path / "meter.yaml").write_text(TARGET.replace("budgets: {BUDGET}", ""))
    with pytest.raises(ConfigurationError, match="did you mean `things`") as raised:
        api._with_teacher(read_project(tmp_path / "project.yaml"), SilentEvents())
    (problem,) = raised.value.problems
    assert (problem.place.file, problem.place.field) == (str(tmp_path / "project.yaml"), "teacher")
