"""A profile in words: what matters, in 80 columns."""

from __future__ import annotations

from edgekd.profiling.text import each_words, profile_lines, steps_of
from tests.profiling.conftest import deployment, stair


def test_it_fits_80_columns_and_says_what_was_found(report):
    lines = profile_lines(report(reused=("memory", "deployment-litert-xnnpack-float32")))
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert "90 GFLOP/s" in text
    assert "an operator has no kernel of 8 bits here" in text
    assert "threads 2: 1.86x" in text
    assert "without pause for 30 s, 3 other cores busy: +50.0% in the last third; 41 to 46 C" in text
    assert "MHz" not in text
    assert "operators on litert/xnnpack float32: Conv 98 G multiply-adds/s, Add 2 us" in text
    assert "no operators on litert/xnnpack float32: depthwise: this backend doesn't tell them" in text
    assert "p50 back to back 270 us, at 30 calls a second 410 us" in text
    assert "known before: memory, deployment-litert-xnnpack-float32" in text


def test_steps_are_where_one_more_width_costs_more_than_its_work():
    assert steps_of(deployment()) == (16, 32, 48)
    smooth = deployment(width_sweep=tuple(stair(width, 0.01 * width**2) for width in range(4, 65, 4)))
    assert steps_of(smooth) == ()


def test_an_operator_too_short_for_its_profile_takes_no_time_of_nothing():
    (_, add) = deployment().operators
    assert each_words(add) == "2 us"
    assert each_words(add.but(time_us=add.time_us.but(value=0.0))) == "under 1 us"


def test_deployments_of_several_threads_are_told_apart_and_what_was_missed_is_said(report):
    four = deployment(threads=4, missed=("peak: out-of-memory at once",), not_kept="board.json: is torn")
    lines = profile_lines(report(threads=4, quick=True, deployments=(deployment(), four)))
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert " litert/xnnpack, 4 threads float32 90 GFLOP/s 1.5 us 17 " in text
    assert " litert/xnnpack float32 90 GFLOP/s 1.5 us 18 " in text
    assert "steps on litert/xnnpack float32, 4 threads after 16, 32, 48 channels" in text
    assert "could not be timed on litert/xnnpack float32, 4 threads: peak: out-of-memory at once" in text
    assert "not in the latency table, litert/xnnpack float32, 4 threads: board.json: is torn" in text
    assert "quick" not in lines[0]
    assert "threads" not in lines[0]


def test_what_could_not_be_timed_is_said(report):
    whole = report()
    text = "\n".join(profile_lines(report(behaviour=whole.behaviour.but(threads=()), memory=None)))
    assert "could not be timed" in text
