from __future__ import annotations

import os
import signal

import pytest

from edgekd.cli.stop import StopFlag


def test_the_first_asks_and_the_second_stops_at_once() -> None:
    said: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with StopFlag(said.append) as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        assert len(said) == 1
        assert said[0].startswith("stopping after the current write")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_handlers_are_restored_after_a_failure() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError), StopFlag(lambda _text: None):
        raise RuntimeError
    assert signal.getsignal(signal.SIGTERM) is before
