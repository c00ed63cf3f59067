"""Which folders `edgekd runs` finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.store.listing import list_runs


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
