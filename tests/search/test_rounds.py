from __future__ import annotations

import pytest

from edgekd import api
from edgekd.errors import ConfigurationError
from edgekd.project import read_project

PROJECT = """
schema: edgekd.project/1
task: {kind: digits}
student: {family: resnet, space: {width: [8, 8], depth: [1, 1]}}
target: this-computer
recipe: [{distill: {loss: ce, epochs: 1}}]
search: {by: rounds, rounds: {recover: 3, least_gain: 0.05}}
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "project.yaml").write_text(PROJECT)
    return tmp_path / "project.yaml"


def test_it_is_read_with_its_options(project):
    asked = read_project(project).search
    assert (asked.by, asked.rounds.recover, asked.rounds.least_gain) == ("rounds", 3, 0.05)
    project.write_text(PROJECT.replace("by: rounds,", "by: turns,"))
    with pytest.raises(ConfigurationError, match="turns"):
        read_project(project)


def test_a_search_refuses_it(project, tmp_path):
    with pytest.raises(ConfigurationError, match="shrinks one trained model"):
        api.search(project, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_only_students_that_shrink_can(project, tmp_path):
    from edgekd.search.rounds import run_rounds

    class Begun:
        def outcome(self):
            return None

    with pytest.raises(ConfigurationError, match="has none here"):
        run_rounds(read_project(project), Begun(), None, None, None)
