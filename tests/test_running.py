"""What a command may do with a run that is there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgekd.checking import with_floor
from edgekd.errors import ConfigurationError
from edgekd.events import SilentEvents
from edgekd.overrides import document_of
from edgekd.project import read_project
from edgekd.records import digest_json
from edgekd.running import bundle_of
from edgekd.store.records import OutcomeRecord, RunHeader
from edgekd.store.run import Run
from edgekd.testing.fakes.device import fake_fingerprint

OWN_MODEL = Path(__file__).parents[1] / "examples" / "own_model"


@pytest.fixture
def own_model(tmp_path: Path) -> Path:
    """The example, with a target that names no floor."""
    folder = shutil.copytree(OWN_MODEL, tmp_path / "own_model", ignore=shutil.ignore_patterns("runs"))
    (target,) = folder.rglob("budget.yaml")
    target.write_text("".join(line for line in target.open() if not line.startswith("accuracy")))
    return folder


class Lines(SilentEvents):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def line(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.slow
def test_rounds_get_the_same_floor_as_a_search_by_trials(own_model: Path) -> None:
    path = own_model / "project.yaml"
    path.write_text(path.read_text().replace("search: {", "search: {by: iterative, "))
    project = with_floor("compress", read_project(path), Lines())
    assert project.search.by == "iterative"
    assert str(project.target.accuracy.drop) == "2 points"


@pytest.mark.slow
def test_a_floor_from_validation_that_is_carved_out_of_training_is_said(own_model: Path) -> None:
    events = Lines()
    project = with_floor("compress", read_project(own_model / "project.yaml"), events)
    assert str(project.target.accuracy.drop) == "2 points"
    assert "names no floor" in events.said[0]
    assert "give x_validation, or write accuracy: {drop: ...}" in events.said[1]


def test_a_space_without_the_whole_model_says_how_to_have_it(own_model: Path) -> None:
    path = own_model / "project.yaml"
    path.write_text(path.read_text().replace("0.75, 1.0]", "0.75]"))
    events = Lines()
    project = with_floor("compress", read_project(path), events)
    assert project.target.accuracy is None
    (line,) = events.said
    assert "is no candidate, and sets no floor" in line
    assert "Put 1.0 among its ratios" in line


@pytest.mark.parametrize("given", [False, True])
def test_weights_that_changed_since_are_not_certified(own_model: Path, tmp_path: Path, given: bool) -> None:
    file = own_model / "project.yaml"
    project = read_project(document_of(file, {"search.finalists": 1}) if given else file)
    if given:  # what was given is read from the run: the file isn't needed
        file.unlink()
    header = RunHeader(
        id="run",
        command="compress",
        created="2026-01-01T00:00:00+00:00",
        project=project.resolved,
        project_file=str(project.path),
        written=project.written,
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
    with (own_model / "my_model.safetensors").open("ab") as weights:
        weights.write(b" ")
    with pytest.raises(ConfigurationError, match=r"student, with its weights, of project\.yaml is no longer"):
        bundle_of(run, SilentEvents())
