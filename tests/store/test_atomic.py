"""A write happened or did not, wherever its writer is killed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekd.store import atomic
from edgekd.store.atomic import draft_of, replace_folder, sweep, write_bytes, write_json

_STEPS = ("open", "write", "fsync", "close", "replace", "rename")


def killed_at(step: int, work: Callable[[], None]) -> bool:
    """Run ``work`` in a child that dies before its ``step``-th call to the system. False where it never got there."""
    child = os.fork()
    if child == 0:
        calls = 0
        for name in _STEPS:
            real = getattr(os, name)

            def counted(*args, _real=real, **kwargs):  # type: ignore[no-untyped-def]
                nonlocal calls
                if calls == step:
                    os._exit(9)
                calls += 1
                return _real(*args, **kwargs)

            setattr(atomic.os, name, counted)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.slow
def test_a_file_is_old_or_new_wherever_the_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    seen = set()
    for step in range(100):
        write_bytes(path, b"old")
        if not killed_at(step, lambda: write_bytes(path, b"new")):
            break
        assert path.read_bytes() in (b"old", b"new")
        seen.add(path.read_bytes())
        sweep(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["record.json"]
    assert step >= 5  # open, write, fsync, close, replace at least
    assert seen == {b"old", b"new"}  # the deaths fell on both sides of the rename
    assert path.read_bytes() == b"new"


@pytest.mark.slow
def test_a_folder_is_old_or_new_wherever_the_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "student"
    seen = set()
    for step in range(100):
        for name, text in (("student", "old"), ("draft", "new")):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "a").write_text(text)
            (tmp_path / name / "b").write_text(text)
        if not killed_at(step, lambda: replace_folder(tmp_path / "draft", path)):
            break
        sweep(tmp_path)
        content = {(path / "a").read_text(), (path / "b").read_text()}
        assert len(content) == 1
        seen |= content
        assert {p.name for p in tmp_path.iterdir()} <= {"student", "draft"}
    assert seen == {"old", "new"}
    assert (path / "a").read_text() == "new"


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    write_bytes(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as failed:
        write_bytes(path, b"new")
    assert Path(failed.value.filename).parent == tmp_path  # the descriptor alone says nothing of the disk
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(atomic.os, "write", lambda descriptor, data: real(descriptor, bytes(data[:3])))
    write_bytes(tmp_path / "record", b"more than three bytes")
    assert (tmp_path / "record").read_bytes() == b"more than three bytes"


def test_drafts_of_one_path_never_meet(tmp_path: Path) -> None:
    assert draft_of(tmp_path / "a") != draft_of(tmp_path / "a")


def test_sweep_leaves_what_is_not_a_leftover(tmp_path: Path) -> None:
    for name in (".hidden", "a.tmp", ".lock", ".student.12.tmp", "trial.json"):
        (tmp_path / name).write_text("kept")
    draft_of(tmp_path / "trials").mkdir()
    (tmp_path / "stages").mkdir()
    draft_of(tmp_path / "stages" / "a").write_text("gone")
    assert len(sweep(tmp_path)) == 2
    assert {p.name for p in tmp_path.iterdir()} == {
        ".hidden",
        "a.tmp",
        ".lock",
        ".student.12.tmp",
        "trial.json",
        "stages",
    }
    assert not list((tmp_path / "stages").iterdir())


def test_json_refuses_what_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "record.json", {"value": float("nan")})
    assert not (tmp_path / "record.json").exists()
    write_json(tmp_path / "record.json", {"ä": [1.5]})
    assert json.loads((tmp_path / "record.json").read_text()) == {"ä": [1.5]}
