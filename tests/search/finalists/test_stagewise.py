from __future__ import annotations

import pytest

from edgekd.errors import Interrupted
from edgekd.search.replay import replay
from edgekd.store.run import Run

STAGE = object()  # a recipe is only counted here: the lab says what its stages left


@pytest.mark.slow
def test_the_winner_is_reported_stage_by_stage(lab):
    lab.recipe = (STAGE, STAGE)
    outcome = lab.search()
    run = Run.open(lab.folder)
    record = run.stages_record()
    assert record.finalist == outcome.chosen
    winner = next(finalist for finalist in run.finalists() if finalist.chosen)
    assert lab.stage_by_stage == [winner.candidate]
    gone, last = record.stages
    assert (gone.stage, gone.p5_us, gone.detail) == ("inherited", None, "its student is no longer kept")
    assert (last.student, last.accuracy, last.size_bytes) == (
        winner.student, winner.accuracy, winner.artefact.size_bytes,
    )  # fmt: skip
    assert last.p5_us.metric == "latency.p5"
    assert last.p5_us.kind.value == "measured"
    assert last.measurement.plan.processes == lab.plan.measure.processes
    assert replay(run).same


@pytest.mark.slow
def test_a_recipe_that_trains_nothing_has_no_stages(lab):
    lab.search()
    assert Run.open(lab.folder).stages_record() is None


@pytest.mark.slow
def test_nothing_chosen_is_not_measured_stage_by_stage(make_lab):
    lab = make_lab(target={"accuracy": {"floor": 0.999}})
    lab.recipe = (STAGE,)
    assert lab.search().chosen is None
    assert lab.stage_by_stage == []


@pytest.mark.slow
def test_without_time_for_it_the_search_just_ends(lab, monkeypatch):
    from edgekd.search import search

    monkeypatch.setattr(search, "stagewise_s", lambda *_: 1e9)
    lab.recipe, lab.budget_s = (STAGE,), 3600.0
    assert lab.search().exit_code == 0
    assert lab.stage_by_stage == []


@pytest.mark.slow
@pytest.mark.parametrize("every", [7, 40])
def test_stopped_anywhere_it_is_reported_once(lab, every):
    lab.recipe = (STAGE,)
    lab.search_through_stops(every)
    run = Run.open(lab.folder)
    before = (lab.folder / "stages.json").read_bytes()
    assert run.stages_record().ended_s > 0
    lab.search()
    assert (lab.folder / "stages.json").read_bytes() == before


@pytest.mark.slow
def test_asked_to_stop_before_it_nothing_is_written(lab):
    class Stops:
        def __call__(self, *_):
            raise Interrupted("asked", "again")

    lab.recipe, lab.steps = (STAGE,), Stops()
    with pytest.raises(Interrupted):
        lab.search()
    run = Run.open(lab.folder)
    assert run.stages_record() is None
    assert run.outcome() is None
