from __future__ import annotations

import os
import signal
import threading

import pytest

from edgekd.cli.main import main
from edgekd.cli.terminal import stop as stop_module
from edgekd.cli.terminal.progress import watching
from edgekd.cli.terminal.stop import StopFlag


def test_the_first_asks_and_the_second_stops_at_once() -> None:
    said: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with StopFlag(said.append) as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        assert said == ["stopping after the current write, within 15 s; Ctrl-C again stops at once"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


class _InTheMiddleOfAWrite:
    """A stderr as a signal handler meets it where the signal came during a write."""

    def __init__(self, descriptor: int) -> None:
        self.fileno = lambda: descriptor

    def write(self, _text: str) -> int:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>")

    def isatty(self) -> bool:
        return False


def test_a_signal_in_the_middle_of_a_write_is_heard_and_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with watching(True) as events:
        monkeypatch.setattr("sys.stderr", _InTheMiddleOfAWrite(writing))
        os.kill(os.getpid(), signal.SIGINT)
        assert events.stop()
    os.close(writing)
    assert os.read(reading, 100).startswith(b"stopping after the current write")
    os.close(reading)


def test_handlers_are_restored_after_a_failure() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError), StopFlag(lambda _text: None):
        raise RuntimeError
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_never_asks_whether_to_stop_is_stopped_all_the_same() -> None:
    with StopFlag(lambda _text: None, patience_s=0.05):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            threading.Event().wait(60)


@pytest.mark.slow
def test_whoever_heard_it_gets_the_time_to_finish() -> None:
    with StopFlag(lambda _text: None, patience_s=0.05) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        threading.Event().wait(0.2)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_interruption_that_a_library_swallows_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_module, "_AGAIN_S", 0.05)
    with StopFlag(lambda _text: None, patience_s=0.05):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                threading.Event().wait(60)


@pytest.mark.slow
def test_nothing_is_interrupted_after_the_end() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with StopFlag(lambda _text: None, patience_s=0.05):
        os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(0.2)
    assert signal.getsignal(signal.SIGALRM) is before


@pytest.mark.slow
def test_the_clean_up_after_a_second_signal_is_not_interrupted_by_the_clock() -> None:
    with StopFlag(lambda _text: None, patience_s=0.05):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(0.2)


def test_a_notice_is_shown_when_quiet_too_and_no_line_is(capsys) -> None:
    with watching(True) as events:
        events.line("a step")
        assert events.notice("code of m.py runs")
    assert capsys.readouterr().err == "code of m.py runs\n"


def test_an_interruption_names_the_projects_code_that_ran(tmp_path, monkeypatch, capsys) -> None:
    """Code that never returns is ended by a second Ctrl-C."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hangs.py").write_text("def build():\n    raise KeyboardInterrupt\n")
    assert main(["bench", "hangs.py:build", "--input", "3x8x8"]) == 130
    assert (
        f"interrupted in `build` ({tmp_path / 'hangs.py'}:2): a run keeps what it finished" in capsys.readouterr().err
    )
