"""Which folders `edgekd runs` finds."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from edgekd import api
from edgekd.store.listing import list_runs
from edgekd.store.run import Run


@pytest.mark.parametrize("asked", ["projects/p2/runs/a", "projects/p2/runs", "projects/p2", "projects"])
def test_runs_are_found_below_a_folder_and_in_it(asked: str, tmp_path: Path) -> None:
    run = tmp_path / "projects" / "p2" / "runs" / "a"
    inside = run / "stages" / "b"
    hidden = tmp_path / "projects" / ".cache" / "c"
    for folder in (run, inside, hidden):
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
    assert [summary.folder for summary in list_runs(tmp_path / asked).runs] == [run]


def test_a_folder_without_runs_or_none_at_all_has_none(tmp_path: Path) -> None:
    assert list_runs(tmp_path).runs == list_runs(tmp_path / "no").runs == ()


def test_a_folder_that_is_locked_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("locked", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    plain = Path.stat

    def stat(path: Path, **options: Any) -> os.stat_result:
        if path.parent == tmp_path / "locked":  # as the system answers whoever may not enter it
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return plain(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    assert [summary.folder for summary in list_runs(tmp_path).runs] == [tmp_path / "open"]


def test_trials_are_flat_rows_with_everything_that_was_found() -> None:
    rows = api.trials(Path(__file__).parent / "golden" / "search-1")
    run = Run.open(Path(__file__).parent / "golden" / "search-1")
    assert [row["trial"] for row in rows] == sorted(trial.number for trial in run.trials())
    assert all(isinstance(value, str | int | float | None) for row in rows for value in row.values())
    first = next(trial for trial in run.trials() if trial.number == rows[0]["trial"])
    assert {name: rows[0][name] for name, _ in first.candidate.arch.choices} == dict(first.candidate.arch.choices)
    assert rows[0]["latency.p95"] == next(f.value for f in first.figures if f.metric == "latency.p95")
