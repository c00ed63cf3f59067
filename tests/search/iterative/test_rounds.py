from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from edgekd import api
from edgekd.errors import ConfigurationError
from edgekd.events import SilentEvents
from edgekd.ir.space import Arch
from edgekd.project import read_project
from edgekd.records import digest_json
from edgekd.search.budget import Budget
from edgekd.store.records import Accuracy, RoundRecord

PROJECT = """
schema: edgekd.project/1
task: {kind: digits}
student: {family: resnet, space: {width: [8, 8], depth: [1, 1]}}
target: this-computer
recipe: [{distill: {loss: ce, epochs: 1}}]
search: {by: iterative, iterative: {recover: 3, least_gain: 0.05}}
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "project.yaml").write_text(PROJECT)
    return tmp_path / "project.yaml"


def test_it_is_read_with_its_options(project):
    asked = read_project(project).search
    assert (asked.by, asked.iterative.recover, asked.iterative.least_gain) == ("iterative", 3, 0.05)
    project.write_text(PROJECT.replace("by: iterative,", "by: turns,"))
    with pytest.raises(ConfigurationError, match="turns"):
        read_project(project)


def test_a_search_refuses_it(project, tmp_path):
    with pytest.raises(ConfigurationError, match="shrinks one trained model"):
        api.search(project, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_only_students_that_shrink_can(project, tmp_path):
    from edgekd.search.iterative.rounds import run_rounds

    class Begun:
        def outcome(self):
            return None

    with pytest.raises(ConfigurationError, match="has none here"):
        run_rounds(read_project(project), Begun(), None, None, None)


@pytest.mark.parametrize(("as_it_came", "trainings", "recovered"), [(0.8, [0, 1], "full"), (0.95, [0], "")])
def test_a_model_below_the_floor_learns_before_it_is_given_up(lab, monkeypatch, as_it_came, trainings, recovered):
    """An original that is bad, or that loses by quantization, may be recovered: nothing was pruned yet."""
    from edgekd.search.iterative import rounds

    def trained(self, stages, start):
        done.append(len(stages))
        value = 0.93 if stages else as_it_came
        scored = Accuracy(value=value, kind="torch", split="validation", samples=9, method="m")
        return digest_json(len(stages)), scored

    done: list[int] = []
    monkeypatch.setattr(rounds._Rounds, "_trained", trained)
    monkeypatch.setattr(rounds._Rounds, "_whole", lambda self: None)
    monkeypatch.setattr(rounds._Rounds, "_bench", lambda self, *_, **__: ([], 0.0))
    floor = SimpleNamespace(hard=True, metric="accuracy", bound=0.9)
    target = SimpleNamespace(limits=(floor,), backends=())
    run = SimpleNamespace(header=SimpleNamespace(target=target), target=target, rounds=list, write=lambda record: None)
    project = SimpleNamespace(recipe=("distill",))
    step = rounds._Rounds(project, run, lab.plan, None, None, SilentEvents(), Budget(None, lambda: 0.0), None, None)
    record = step._measured(RoundRecord(number=0, before=None, options=(), arch=Arch.of({"keep": 1.0})))
    assert (done, record.recovered) == (trainings, recovered)


def test_a_recovery_ends_in_time_for_the_certificate(lab, monkeypatch):
    from edgekd.search.iterative import rounds

    @dataclass(frozen=True)
    class Where:
        late: Callable[[], bool] = lambda: False

    def trained(stages, start, where, students):
        answers.append(where.late())
        clock.now = 900.0
        answers.append(where.late())
        return SimpleNamespace(student=start, curve=(), key=digest_json(1))

    answers: list[bool] = []
    clock = SimpleNamespace(now=0.0)
    scored = Accuracy(value=0.5, kind="torch", split="validation", samples=9, method="m")
    monkeypatch.setattr(rounds, "run_recipe", trained)
    monkeypatch.setattr(rounds, "context_of", lambda *_: None)
    monkeypatch.setattr(rounds, "stage_context", lambda *_: Where())
    monkeypatch.setattr(rounds, "score_student", lambda *_: scored)
    project = SimpleNamespace(recipe=(), task=None)
    run, budget = SimpleNamespace(students=None), Budget(901.0, lambda: clock.now)
    step = rounds._Rounds(project, run, lab.plan, None, None, SilentEvents(), budget, None, None)
    step._trained((), SimpleNamespace(arch=Arch.of({"keep": 1.0})))
    assert answers == [False, True]
