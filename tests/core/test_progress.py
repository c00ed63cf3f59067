"""Progress as a person sees it: on a terminal of 80 columns, and in a pipe."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from edgekd.cli.terminal.progress import watching
from edgekd.events import measuring
from edgekd.progress import Bars, PlainSteps, shown


class Screen:
    """What two bars show, drawn at a time of the test's own."""

    def __init__(self, width: int = 80) -> None:
        self.now = 0.0
        self.console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
        self.bars = Bars(lambda: False, self.console, clock=lambda: self.now)

    def lines(self) -> list[str]:
        with self.console.capture() as caught:
            self.console.print(self.bars.live.get_renderable())
        return caught.get().splitlines()


@pytest.fixture
def screen() -> Screen:
    return Screen()


def test_one_bar_for_the_budget_and_one_for_the_present_step(screen: Screen) -> None:
    screen.bars.budget(180.0, spent=12.0)
    screen.bars.progress("filters", 0, 360)
    screen.now = 10.0
    screen.bars.progress("filters", 90, 360)
    budget, step = screen.lines()
    assert budget.startswith("budget")
    assert "0:22 of 3:00" in budget
    assert budget.rstrip().endswith("2:38 left")
    assert "90/360" in step
    assert step.rstrip().endswith("0:30 left")


def test_a_step_s_bar_goes_when_the_next_one_begins(screen: Screen) -> None:
    screen.bars.progress("filters", 112, 360)
    screen.bars.progress("deployments", 1, 4, "process 3 15/15")
    screen.bars.progress("searching", 4, 0, "~96.7 % @ 5.51 us p5")
    (only,) = screen.lines()
    assert only.startswith("searching")
    assert " 4 ~96.7 % @ 5.51 us p5" in only


def test_nothing_is_cut_at_eighty_columns_that_could_stand_whole(screen: Screen) -> None:
    screen.bars.budget(5400.0, spent=3700.0)
    screen.bars.progress("distill", 0, 20780)
    screen.now = 60.0
    screen.bars.progress("distill", 20000, 20780, "epoch 20/20, validation 99.6%, 1,551 images/s")
    budget, step = screen.lines()
    assert max(len(budget), len(step)) <= 80
    assert "1:02:40 of 1:30:00" in budget
    assert "96%" in step
    assert "epoch 20/20, validation 99.6%" in step
    assert step.rstrip().endswith("0:02 left")


def test_a_budget_that_is_used_up_says_by_how_much(screen: Screen) -> None:
    screen.bars.budget(60.0, spent=0.0)
    screen.now = 84.0
    (budget,) = screen.lines()
    assert budget.rstrip().endswith("0:24 over")


def test_a_step_that_is_done_or_has_just_begun_has_no_time_left(screen: Screen) -> None:
    screen.bars.progress("deployments", 3, 4)
    screen.now = 5.0
    assert "left" not in "".join(screen.lines())
    screen.bars.progress("deployments", 4, 4)
    assert "left" not in "".join(screen.lines())


def test_names_in_brackets_are_no_markup(screen: Screen) -> None:
    screen.bars.progress("deployments", 1, 4, "[bold]x[/bold]")
    assert "[bold]x[/bold]" in screen.lines()[0]


def test_the_bars_are_gone_at_the_end_and_lines_stay(screen: Screen) -> None:
    with screen.console.capture() as caught, screen.bars.live:
        screen.bars.progress("filters", 1, 2)
        screen.bars.line("filters    2 archs -> 1 may fit")
    shown_last = caught.get().rpartition("may fit")[2]
    assert "\x1b[2K" in shown_last or "\x1b[1A" in shown_last  # erased: the last thing drawn is nothing
    assert "filters    2 archs -> 1 may fit" in caught.get()


def test_a_device_s_processes_are_steps_of_one_stage(screen: Screen) -> None:
    step = measuring(screen.bars)
    for done in range(1, 10):
        step(f"process {(done + 2) // 3}", done, 9)
        assert len(screen.lines()) == 1
    assert "9/9" in screen.lines()[0]


def test_a_plain_line_a_step_not_more_often_than_every_two_seconds() -> None:
    now = [0.0]
    stream = io.StringIO()
    steps = PlainSteps(lambda: False, stream, clock=lambda: now[0])
    steps.budget(60.0, 0.0)
    for done in range(101):
        steps.progress("searching", done, 100, "best 97 %" if done == 100 else "")
        now[0] += 0.1
    steps.progress("searching", 100, 100)
    steps.progress("refining", 0, 0)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "searching  0/100"
    assert lines[-2:] == ["searching  100/100  best 97 %", "refining  0"]
    assert len(lines) == 7


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(quiet=True) as events:
        events.progress("filters", 1, 2)
        events.line("filters")
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(quiet=False) as events:
        events.progress("filters", 1, 2)
    assert capsys.readouterr().err == "filters  1/2\n"


def test_a_terminal_gets_bars_and_a_dumb_one_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with shown(None) as events:
        assert isinstance(events, Bars)
    monkeypatch.setenv("TERM", "dumb")
    with shown(None) as events:
        assert isinstance(events, PlainSteps)
