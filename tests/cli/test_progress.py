from __future__ import annotations

import io

from edgekd.cli.progress import PlainSteps


def test_a_plain_line_a_step_not_more_often_than_every_two_seconds() -> None:
    now = [0.0]
    stream = io.StringIO()
    steps = PlainSteps(lambda: False, stream, clock=lambda: now[0])
    for done in range(101):
        steps.progress("searching", done, 100, "best 97 %" if done == 100 else "")
        now[0] += 0.1
    steps.progress("searching", 100, 100)
    steps.progress("refining", 0, 0)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "searching  0/100"
    assert lines[-2:] == ["searching  100/100  best 97 %", "refining  0"]
    assert len(lines) == 7
