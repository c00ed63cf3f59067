"""The profiler's table, as text."""

from __future__ import annotations

from edgekd.agent.runtimes.base import Operator
from edgekd.agent.runtimes.litert_profiler import read_summary

TABLE = """=============== Run Order ===============
      [node type]    [start]    [first]   [avg ms]        [%]     [cdf%]   [mem KB] [times called]   [Name]
Delegate/Convolution (NHWC, QC8) IGEMM      0.000      0.008      0.007     4.7%     4.7%      0.000   20   [Delegate]:0
SOFTMAX      0.004      0.001      0.002     0.2%   100.0%      0.000   20   [Builtin]:15

=============== Top by Computation Time ===============
SOFTMAX      0.004      0.001      0.002     0.2%   100.0%      0.000   20   [Builtin]:15
"""


def test_each_operator_once_in_order() -> None:
    assert read_summary(TABLE) == [
        Operator("Delegate:0", "Delegate/Convolution (NHWC, QC8) IGEMM", 7.0, "QC8"),
        Operator("Builtin:15", "SOFTMAX", 2.0),
    ]


def test_any_other_text_has_no_operators() -> None:
    assert read_summary("no events") == []
