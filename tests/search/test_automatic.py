from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgekd.documents import Document
from edgekd.errors import ConfigurationError, Diverged, Interrupted
from edgekd.events import SilentEvents
from edgekd.project import Project
from edgekd.recipes.auto import Auto
from edgekd.search import automatic
from edgekd.search.automatic import resolved_recipe
from edgekd.search.replay import replay
from edgekd.store.run import Run
from edgekd.students.resnet import ResNet

STAGE = SimpleNamespace(name="another")
QUALITY = {"dkd": 0.8, "kd": 0.7, "ce": 0.3}


@pytest.fixture
def run(lab):
    lab.budget_s = 100.0
    header = lab.header().but(project={"recipe": [{"auto": Auto().model_dump(mode="json")}, {"another": {}}]})
    return Run.create(lab.folder, header)


@pytest.fixture
def project(task, teacher, tmp_path):
    family = ResNet.model_validate({"space": {"width": [8, 24], "depth": [1, 1]}, "stages": 2})
    return Project(
        task=task, teacher=teacher, family=family, target=None, recipe=(Auto(), STAGE), search=None, export=None,
        folder=tmp_path, device_folder=tmp_path, path=tmp_path, document=Document(tmp_path, {}, ()),
        resolved={}, accuracy=None, student={},
    )  # fmt: skip


@pytest.fixture
def trained(monkeypatch):
    """Trainings on paper: what was trained, and for how long; scored by the loss, and views a little."""
    done = []

    def run_recipe(stages, student, where, store):
        done.append(stages[0])
        return SimpleNamespace(student=stages[0])

    def validated(stage, where):
        views = stage.augment.model_dump_json()
        on_labels = {"dkd", "dist", "kd", "attention"} & {name for name, _ in stage.loss.parts} or {"ce"}
        return QUALITY.get("+".join(sorted(on_labels)), 0.1) + (0.05 if "mixup" in views else 0.01 * ("rand" in views))

    monkeypatch.setattr(automatic, "run_recipe", run_recipe)
    monkeypatch.setattr(automatic, "validated", validated)
    return done


def test_the_best_takes_its_place(project, run, trained):
    settled = resolved_recipe(project, run, SilentEvents(), 0.0, lambda: 1.0)
    chosen, other = settled.recipe
    assert other is STAGE
    assert [name for name, _ in chosen.loss.parts] == ["ce", "dkd"]
    assert chosen.epochs == 40
    record = run.auto()
    assert (record.loss, record.views, record.ended) == ("dkd", "with randaugment", "done")
    (out,) = [option for option in record.options if option.name == "with mixup"]
    assert "needs one label a sample" in out.why_not
    closed = {option.name for option in record.options if "needs the teacher's features" in option.why_not}
    assert closed == {"fitnet", "simkd", "reviewkd"}
    assert dict(record.arch.choices) == {"depth1": 1, "depth2": 1, "width1": 16, "width2": 16}
    assert {stage.epochs for stage in trained} == {2, 4, 8}
    assert "dkd, with randaugment: the best of 6 losses and 2 views, 81.0% validation after 8 epochs" in record.line()
    count = len(trained)
    assert resolved_recipe(project, run, SilentEvents()).recipe[0] == chosen
    assert len(trained) == count
    (step,) = [step for step in replay(run).steps if step.name == "auto"]
    assert (step.decisions, step.differ) == (2, ())


@pytest.mark.parametrize(("classes", "least"), [(2, 0.75), (3, 2 / 3), (10, 0.2)])
def test_what_is_hardly_better_than_chance(project, run, trained, task, classes, least):
    task.spec = task.spec.but(head=task.spec.head.but(classes=classes))
    record = automatic._Choosing(project, run, SilentEvents(), Auto(), lambda: 0.0)
    assert record._least() == pytest.approx(least)


def test_without_a_teacher_the_labels_are_left(project, run, trained):
    from dataclasses import replace

    settled = resolved_recipe(replace(project, teacher=None), run, SilentEvents(), 0.0, lambda: 1.0)
    assert [name for name, _ in settled.recipe[0].loss.parts] == ["ce"]
    assert run.auto().views == "with mixup"


def test_when_its_time_is_up_it_takes_what_leads(project, run, trained):
    clock = iter(range(0, 10_000, 3))
    resolved_recipe(project, run, SilentEvents(), 0.0, lambda: float(next(clock)))
    record = run.auto()
    assert record.ended == "time"
    assert (record.loss, record.views) == ("dkd", "crop and flip")
    tried = {phase: {score.option for score in record.of(phase)} for phase in ("loss", "views")}
    assert len(tried["loss"]) == 3  # of six: six tenths of its 20 s are theirs
    assert f"of 3 losses and {len(tried['views'])} views" in record.line()
    assert "as far as its time went" in record.line()


def test_stopped_it_goes_on_where_it_was(project, run, trained):
    class Stops(SilentEvents):
        def __init__(self, after):
            self.left = after

        def stop(self):
            self.left -= 1
            return self.left < 0

    with pytest.raises(Interrupted):
        resolved_recipe(project, run, Stops(4), 0.0, lambda: 1.0)
    before = run.auto()
    assert not before.ended
    assert before.ended_s > 0
    count = len(trained)
    assert count == len(before.scores) == 4
    resolved_recipe(project, run, SilentEvents(), 0.0, lambda: 1.0)
    assert run.auto().scores[:4] == before.scores
    assert len(trained) == len(run.auto().scores)


def test_one_that_diverges_is_passed_over_and_all_of_them_are_an_error(project, run, trained, monkeypatch):
    def diverges(stages, student, where, store):
        if stages[0].loss.parts[-1][0] == "dkd":
            raise Diverged("the loss became NaN", "lower it")
        return SimpleNamespace(student=stages[0])

    monkeypatch.setattr(automatic, "run_recipe", diverges)
    resolved_recipe(project, run, SilentEvents(), 0.0, lambda: 1.0)
    assert run.auto().loss == "kd"
    (bad,) = [score for score in run.auto().scores if score.option == "dkd"]
    assert (bad.validation, bad.detail) == (None, "the loss became NaN")


def test_nothing_to_choose_by_or_from_is_reported(project, run, trained, monkeypatch):
    from dataclasses import replace

    def diverges(*_):
        raise Diverged("the loss became NaN", "lower it")

    with pytest.raises(ConfigurationError, match="more than once"):
        resolved_recipe(replace(project, recipe=(Auto(), Auto())), run, SilentEvents())
    monkeypatch.setattr(automatic, "run_recipe", diverges)
    with pytest.raises(ConfigurationError, match="no loss that can be trained"):
        resolved_recipe(project, run, SilentEvents(), 0.0, lambda: 1.0)
    assert not run.auto().ended


def test_any_other_recipe_is_left_alone(project, run):
    from dataclasses import replace

    other = replace(project, recipe=(STAGE,))
    assert resolved_recipe(other, run, SilentEvents()) is other
    assert run.auto() is None
