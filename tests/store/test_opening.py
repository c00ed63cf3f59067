"""The same command goes on where it stopped, whatever day it is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edgekd.errors import ConfigurationError
from edgekd.store.listing import list_runs
from edgekd.store.opening import changed_since, is_finished, open_run, require_place
from edgekd.store.records import OutcomeRecord, RunHeader, TeachersRecord
from edgekd.store.run import Run

DONE = OutcomeRecord(exit_code=0, summary="certified", chosen=1, seconds=3.0)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def finish(run: Run, outcome: OutcomeRecord = DONE, *, bundle: bool = True) -> None:
    with run.writing():
        run.write(outcome)
    if bundle:
        (run.folder / "bundle").mkdir()


def test_a_new_run_is_called_after_its_day_and_task(header: RunHeader) -> None:
    run = open_run(header)
    assert run.folder.name.endswith("-p")
    assert run.header.id == run.folder.name
    assert not is_finished(run)


def test_an_unfinished_run_goes_on_another_day(header: RunHeader) -> None:
    begun = open_run(header)
    later = header.but(created="2026-02-03T00:00:00+00:00")
    assert open_run(later).folder == begun.folder
    finish(begun)
    assert open_run(later).folder.name == "2026-02-03-p"


def test_a_run_without_its_bundle_is_not_finished(header: RunHeader) -> None:
    begun = open_run(header)
    finish(begun, bundle=False)
    assert open_run(header).folder == begun.folder
    (begun.folder / "bundle").mkdir()
    assert open_run(header).folder.name == f"{begun.folder.name}-2"


def test_a_run_that_found_nothing_is_finished(header: RunHeader) -> None:
    begun = open_run(header)
    finish(begun, OutcomeRecord(exit_code=5, summary="nothing fits", chosen=None, seconds=3.0), bundle=False)
    assert is_finished(begun)


def test_a_run_that_was_too_noisy_to_decide_goes_on(header: RunHeader) -> None:
    begun = open_run(header)
    finish(begun, OutcomeRecord(exit_code=6, summary="too noisy", chosen=None, seconds=3.0), bundle=False)
    assert not is_finished(begun)
    assert open_run(header).folder == begun.folder
    assert list_runs(begun.folder.parent).runs[0].state == "too noisy"


def test_a_run_of_something_else_is_left_alone(header: RunHeader) -> None:
    begun = open_run(header)
    other = open_run(header.but(seed=8))
    assert other.folder != begun.folder
    assert open_run(header).folder == begun.folder


def test_a_run_that_was_refused_before_its_first_step_takes_another_project(header: RunHeader, here: Path) -> None:
    run = open_run(header, here / "mine")
    with run.writing():
        run.write(TeachersRecord(teachers=()))
    corrected = open_run(header.but(seed=8), here / "mine")
    assert (corrected.header.seed, corrected.teachers()) == (8, None)
    assert Run.open(here / "mine").header.seed == 8


def test_a_folder_stays_a_run_where_its_new_header_cannot_be_written(
    header: RunHeader, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = open_run(header, here / "r")

    def full(path: Path, record: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("edgekd.store.run.write_json", full)
    with pytest.raises(OSError, match="No space"):
        begun.begin_anew(header.but(seed=9))
    assert Run.open(here / "r").header == begun.header


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_what_is_no_folder_is_said(header: RunHeader, here: Path, kind: str) -> None:
    (here / "mine").touch() if kind == "file" else (here / "mine").symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match="mine: is no folder for a run"):
        open_run(header, here / "mine")


def test_no_run_can_be_below_a_file(here: Path) -> None:
    (here / "mine").touch()
    with pytest.raises(ConfigurationError, match="mine: is no folder for a run"):
        require_place(here / "mine" / "run")
    require_place(here / "new" / "run")


def test_what_differs_is_named(header: RunHeader, here: Path) -> None:
    begun = open_run(header, here / "mine")
    (begun.folder / "trials").mkdir()
    with pytest.raises(ConfigurationError, match="begun with another budget"):
        open_run(header.but(budget_s=7.0), here / "mine")
    another = header.but(seed=8, fingerprint=header.fingerprint.but(cpu="another", os="Linux 9"))
    with pytest.raises(ConfigurationError, match=r"another seed, device \(cpu, os\)"):
        open_run(another, here / "mine")
    metered = header.but(fingerprint=header.fingerprint.but(meter="rapl"))
    for one, other in ((header, metered), (metered, header)):
        assert changed_since(one, other.fingerprint, one.versions) == ["device (meter)"]
    later = header.but(versions={**header.versions, "torch": "99.0"})
    with pytest.raises(ConfigurationError, match=r"another set of packages \(torch\)"):
        open_run(later, here / "mine")


def test_a_run_goes_on_where_another_packages_runtime_was_installed(header: RunHeader, here: Path) -> None:
    begun = open_run(header, here / "mine")
    (begun.folder / "trials").mkdir()
    plain = header.fingerprint
    beside = plain.but(runtimes={**plain.runtimes, "tiny": "1.0"}, providers={**plain.providers, "tiny": ("cpu",)})
    assert open_run(header.but(fingerprint=beside), here / "mine").header == begun.header
