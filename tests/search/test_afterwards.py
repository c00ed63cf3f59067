"""A run's folder in the hands of the other commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgekd import api
from edgekd.errors import ConfigurationError, UsageError


@pytest.mark.slow
def test_a_bundle_replaces_nothing_but_a_bundle(lab: Any, tmp_path: Path) -> None:
    lab.search()
    kept = tmp_path / "models" / "precious.tflite"
    kept.parent.mkdir()
    kept.write_bytes(b"trained for a week")
    (tmp_path / "link").symlink_to(kept.parent)
    for output in (kept.parent, kept, tmp_path / "link"):
        with pytest.raises(UsageError, match="--output"):
            api.export(lab.folder, output=output)
    assert kept.read_bytes() == b"trained for a week"
    for output in (tmp_path / "new", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(ConfigurationError):  # the lab makes no bundles: the folder was no obstacle
            api.export(lab.folder, output=output)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["trials/0001.json", "run.json"])
def test_a_damaged_run_is_listed_and_hides_no_other(make_lab: Any, file: str) -> None:
    whole, damaged = make_lab(), make_lab()
    for lab in (whole, damaged):
        lab.search()
    (damaged.folder / "outcome.json").unlink()
    path = damaged.folder / file
    assert path.is_file()
    path.write_text("{")
    states = {}
    for lab in (whole, damaged):
        states |= {run.folder: run.state for run in api.runs(lab.folder.parent).runs}
    assert len(states) == 2
    assert states[damaged.folder].startswith("damaged: ")
    assert not states[whole.folder].startswith("damaged: ")
