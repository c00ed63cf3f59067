from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgekd.events import SilentEvents
from edgekd.recipes.teach import TrainedTeacher
from edgekd.search.rating import rate_teachers
from edgekd.store.run import Run


@pytest.fixture
def run(lab):
    return Run.create(lab.folder, lab.header())


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(SilentEvents, "line", lambda _, text: lines.append(text))
    return lines


@pytest.mark.slow
def test_a_chain_is_reported_from_the_first_teacher_to_the_last(run, task, said, tmp_path):
    above = {"kind": "train", "width": 16, "epochs": 3, "batch_size": 32}
    asked = TrainedTeacher.model_validate({"width": 8, "epochs": 2, "batch_size": 32, "teacher": above})
    teacher = asked.prepare(task, tmp_path)
    rate_teachers(SimpleNamespace(task=task, teacher=teacher), run, SilentEvents())
    first, last = run.teachers().teachers
    assert ("16" in first.name, "8" in last.name) == (True, True)
    assert last.identity == teacher.digest()
    assert 0.0 <= last.score <= 1.0
    assert first.samples == last.samples == len(task.split("validation"))
    assert [line.split()[0] for line in said if "validation samples" in line] == ["teacher", "teacher"]


def test_one_that_knows_and_one_that_guesses(run, task, teacher, said, monkeypatch):
    project = SimpleNamespace(task=task, teacher=teacher)
    assert rate_teachers(project, run, SilentEvents()).teachers[0].score > 0.9
    assert len(said) == 1
    monkeypatch.setattr(type(teacher), "logits", lambda _, batch: batch.new_zeros(len(batch), 3))
    rate_teachers(project, run, SilentEvents())
    assert "hardly better than chance" in said[-1]


def test_a_good_teacher_of_two_classes_is_not_called_a_guess(run, task, teacher, said, monkeypatch):
    """Twice of what guessing scores is all there is."""
    two = SimpleNamespace(spec=task.spec.but(head=task.spec.head.but(classes=2)), split=task.split)
    scored = SimpleNamespace(value=0.95, samples=90, metric="top1")
    monkeypatch.setattr("edgekd.search.rating.rated", lambda *_: scored)
    rate_teachers(SimpleNamespace(task=two, teacher=teacher), run, SilentEvents())
    assert len(said) == 1


def test_without_a_teacher_nothing_is_written(run, task, said):
    assert rate_teachers(SimpleNamespace(task=task, teacher=None), run, SilentEvents()) is None
    assert (run.teachers(), said) == (None, [])
