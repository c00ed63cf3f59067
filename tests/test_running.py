"""What a command may do with a run that is there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgekd.errors import ConfigurationError
from edgekd.events import SilentEvents
from edgekd.project import read_project
from edgekd.records import digest_json
from edgekd.running import bundle_of
from edgekd.store.records import OutcomeRecord, RunHeader
from edgekd.store.run import Run
from edgekd.testing.fakes.device import fake_fingerprint

OWN_MODEL = Path(__file__).parents[1] / "examples" / "own_model"


def test_weights_that_changed_since_are_not_certified(tmp_path: Path) -> None:
    folder = shutil.copytree(OWN_MODEL, tmp_path / "own_model", ignore=shutil.ignore_patterns("runs"))
    project = read_project(folder / "project.yaml")
    header = RunHeader(
        id="run",
        command="compress",
        created="2026-01-01T00:00:00+00:00",
        project=project.resolved,
        project_file=str(project.path),
        target=project.target,
        task=project.task.spec,
        teacher="none",
        teacher_digest=digest_json(None),
        family=project.family.name,
        family_digest=project.family.digest(),
        fingerprint=fake_fingerprint(),
        versions={},
        seed=0,
        budget_s=None,
    )
    run = Run.create(tmp_path / "run", header)
    run.write(OutcomeRecord(exit_code=0, chosen=1, summary="chosen", seconds=1.0))
    with (folder / "my_model.safetensors").open("ab") as weights:
        weights.write(b" ")
    with pytest.raises(ConfigurationError, match=r"student, with its weights file, of project\.yaml is no longer"):
        bundle_of(run, SilentEvents())
