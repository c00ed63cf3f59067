"""Runs are created once, read back as they were written, and written by one process at a time."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from pathlib import Path, PurePath

import pytest

from edgekd.errors import ConfigurationError
from edgekd.records import Filed
from edgekd.store.atomic import draft_of
from edgekd.store.lock import RunBusy, locked
from edgekd.store.records import FiltersRecord, OutcomeRecord, RunHeader, TrialRecord
from edgekd.store.run import Run, record_at

GOLDEN = Path(__file__).parent / "golden"


def test_a_run_is_read_back_as_it_was_written(tmp_path: Path, header: RunHeader) -> None:
    run = Run.create(tmp_path / "run", header)
    filters = FiltersRecord(space_size=10, considered=10, filters=(), left=10)
    run.write(filters)
    again = Run.open(tmp_path / "run")
    assert again.header == header
    assert again.filters() == filters
    assert again.outcome() is None
    assert again.trials() == ()


@pytest.mark.parametrize(
    ("place", "record"),
    [
        ("run.json", RunHeader),
        ("outcome.json", OutcomeRecord),
        ("trials/0003.json", TrialRecord),
        ("bundle/outcome.json", None),
        ("holiday.json", None),
    ],
)
def test_a_place_determines_the_record_written_there(place: str, record: type[Filed] | None) -> None:
    assert record_at(PurePath(place)) is record


def test_a_run_is_never_created_over_something_else(tmp_path: Path, header: RunHeader) -> None:
    (tmp_path / "holiday.jpg").write_text("")
    with pytest.raises(ConfigurationError, match=r"holiday\.jpg"):
        Run.create(tmp_path, header)
    assert not (tmp_path / "run.json").exists()


def test_a_folder_that_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a run folder"):
        Run.open(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "has schema `None`"),
        ('{"schema": "edgekd.outcome/2"}', r"`edgekd\.outcome/1` is expected"),
        ('{"schema": "edgekd.outcome/1", "exit_code": 0}', "summary: Field required"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, header: RunHeader, text: str, message: str) -> None:
    run = Run.create(tmp_path / "run", header)
    (run.folder / "outcome.json").write_text(text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        run.outcome()
    assert str(run.folder / "outcome.json") in str(caught.value)


def test_an_unknown_field_is_refused(tmp_path: Path, header: RunHeader) -> None:
    run = Run.create(tmp_path / "run", header)
    path = run.write(OutcomeRecord(exit_code=0, summary="", chosen=None, seconds=1.0))
    path.write_text(json.dumps({**json.loads(path.read_text()), "luck": 1}))
    with pytest.raises(ConfigurationError, match="luck"):
        run.outcome()


def test_what_a_killed_writer_left_is_swept_on_open(tmp_path: Path, header: RunHeader) -> None:
    run = Run.create(tmp_path / "run", header)
    left = draft_of(run.folder / "outcome.json")
    left.write_text("{")
    Run.open(run.folder)
    assert not left.exists()


def test_a_reader_does_not_sweep_under_a_writer(tmp_path: Path, header: RunHeader) -> None:
    run = Run.create(tmp_path / "run", header)
    with run.writing():
        draft = draft_of(run.folder / "outcome.json")
        draft.write_text("{")
        Run.open(run.folder)
        assert draft.exists()


def _hold(folder: str, held, done) -> None:  # type: ignore[no-untyped-def]
    with Run.open(Path(folder)).writing():
        held.set()
        done.wait(300)


@pytest.mark.slow
def test_the_error_of_a_second_writer_names_the_first(tmp_path: Path, header: RunHeader) -> None:
    run = Run.create(tmp_path / "run", header)
    context = multiprocessing.get_context("fork")
    held, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(run.folder), held, done))
    other.start()
    try:
        assert held.wait(300)
        with pytest.raises(RunBusy, match=f"process {other.pid} ") as caught, run.writing():
            pass
        assert caught.value.exit_code == 4
    finally:
        done.set()
        other.join(300)
    with run.writing():  # and given back
        pass


@pytest.mark.slow
def test_a_reader_that_sweeps_is_waited_for(tmp_path: Path, header: RunHeader) -> None:
    run = Run.create(tmp_path / "run", header)
    held, gone = threading.Event(), threading.Event()

    def sweeping() -> None:
        with locked(run.folder):
            held.set()
            gone.wait(0.3)

    reader = threading.Thread(target=sweeping)
    reader.start()
    assert held.wait(300)
    with run.writing():
        pass
    reader.join()


def test_a_killed_writer_gives_the_lock_back(tmp_path: Path, header: RunHeader) -> None:
    run = Run.create(tmp_path / "run", header)
    child = os.fork()
    if child == 0:
        with run.writing():
            os._exit(9)
    os.waitpid(child, 0)
    with run.writing():
        pass


@pytest.mark.parametrize("folder", sorted(p for p in GOLDEN.iterdir() if p.is_dir()), ids=lambda p: p.name)
def test_recorded_runs_load_for_ever(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "run")  # opening sweeps, and the recorded one stays as it is
    run = Run.open(tmp_path / "run")
    outcome = run.outcome()
    assert outcome is not None
    assert outcome.exit_code == 0
    for record in (run.plan(), run.features(), run.filters(), run.deployments(), run.proposals()):
        assert record is not None
    assert len(run.reference_archs()) >= 2
    assert len(run.trials()) >= 4
    chosen = next(f for f in run.finalists() if f.chosen)
    assert chosen.rank == outcome.chosen
    assert chosen.measurement is not None
    later = {"family_digest", "sizes", "written"}  # fields that came after it was recorded
    for path, record in [("run.json", run.header), ("outcome.json", outcome)]:
        assert json.loads((folder / path).read_text()) == record.model_dump(mode="json", exclude=later)


def test_a_target_of_plain_figures_is_not_looked_up(tmp_path: Path, header: RunHeader) -> None:
    run = Run.create(tmp_path / "r", header)
    run.path("original.json").write_text("{")
    assert run.target == header.target
