"""The profiler's table, as text."""

from __future__ import annotations

import pytest

from edgekd.agent.runtimes.base import Refusal, TimedOperator
from edgekd.agent.runtimes.litert_profiler import believed, read_summary

TABLE = """=============== Run Order ===============
      [node type]    [start]    [first]   [avg ms]        [%]     [cdf%]   [mem KB] [times called]   [Name]
Delegate/Convolution (NHWC, QC8) IGEMM      0.000      0.008      0.007     4.7%     4.7%      0.000   20   [Delegate]:0
SOFTMAX      0.004      0.001      0.002     0.2%   100.0%      0.000   20   [Builtin]:15

=============== Top by Computation Time ===============
SOFTMAX      0.004      0.001      0.002     0.2%   100.0%      0.000   20   [Builtin]:15
"""


def test_each_operator_once_in_order() -> None:
    assert read_summary(TABLE, 20) == [
        TimedOperator("Delegate:0", "Delegate/Convolution (NHWC, QC8) IGEMM", 7.0, "QC8"),
        TimedOperator("Builtin:15", "SOFTMAX", 2.0),
    ]


def test_a_row_of_several_partitions_is_as_many_operators() -> None:
    merged = TABLE.replace("20   [Delegate]:0", "60   [Delegate]:0")
    convolution = TimedOperator("Delegate:0", "Delegate/Convolution (NHWC, QC8) IGEMM", 7.0, "QC8")
    assert read_summary(merged, 20) == [*[convolution] * 3, TimedOperator("Builtin:15", "SOFTMAX", 2.0)]


def test_times_too_short_for_the_clock_are_not_reported() -> None:
    """Of a call of 5.3 us it once reported 1 us, all of it the last layer's."""
    operators = read_summary(TABLE, 20)
    assert believed(operators, 17.9) == operators
    assert believed([], 5.0) == []
    with pytest.raises(Refusal, match=r"tells 9\.0 of a call's 18\.1 us"):
        believed(operators, 18.1)


def test_any_other_text_has_no_operators() -> None:
    assert read_summary("no events", 20) == []
