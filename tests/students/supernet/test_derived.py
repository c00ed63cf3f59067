"""Block costs derived from traced archs: exact, from few traces, and refused where parts are not local."""

from __future__ import annotations

import pytest

from edgekd.errors import ConfigurationError
from edgekd.ir.space import Arch, Axis, Condition, Space
from edgekd.students.analysis import Part
from edgekd.students.supernet.block_costs import Cost
from edgekd.students.supernet.derived import derived_block_costs

WIDTHS = tuple(range(8, 136, 8))
SPACE = Space(
    axes=(
        Axis(name="depth", choices=(0, 1, 2, 3, 4, 5)),
        Axis(name="first", choices=WIDTHS),
        Axis(name="kind", choices=("cheap", "dear"), when=(Condition(axis="depth", choices=(1, 2, 3, 4, 5)),)),
        Axis(name="second", choices=WIDTHS, when=(Condition(axis="depth", choices=(1, 2, 3, 4, 5)),)),
    )
)


def convolution(name, before, after, kind="conv"):
    weights = after * (1 if kind == "depthwise" else before)
    return Part(name, kind, outputs=after, macs=64 * weights, moved=64 * (before + after), weights=weights + after)


def parts(arch):
    """A stem, blocks of two kinds, and what answers behind whichever was the last."""
    first, depth = int(arch["first"]), int(arch["depth"])
    found, last = [convolution("stem", 3, first)], first
    for block in range(depth):
        second = int(arch["second"])
        kind = "depthwise" if arch["kind"] == "cheap" and block else "conv"
        found.append(convolution(f"block{block}", last, second, kind))
        last = second
    return [*found, convolution("head", last, 10)]


def counted(made):
    def count(arch):
        made.append(arch)
        return parts(arch)

    return count


@pytest.mark.slow
def test_they_add_up_to_every_arch_from_a_few_traces():
    made: list[Arch] = []
    block_costs = derived_block_costs(SPACE, counted(made))
    for arch in SPACE:
        found = parts(arch)
        wanted = {
            "macs": sum(part.macs for part in found),
            "bytes": sum(4 * (part.moved + part.weights) for part in found),
            "weights": sum(part.weights for part in found),
            "operators": len(found),
            "macs16": sum(part.macs // part.outputs * -(-part.outputs // 16) * 16 for part in found),
        }
        assert {name: Cost.counted(block_costs, name).of(arch, SPACE.axes) for name in wanted} == wanted, str(arch)
    assert SPACE.size == 2576
    assert len(made) == len(set(made)) < 200  # three widths of sixteen tell the others
    apart = [block.axes for block in block_costs if block.name.startswith("depthwise ")]
    assert apart == [("depth", "kind", "second")]


def test_costs_that_are_no_sums_are_refused():
    def together(arch):
        return [convolution("all", int(arch["first"]), int(arch["first"])), *parts(arch)][
            : 3 - int(arch["first"] == 40)
        ]

    with pytest.raises(ConfigurationError, match="are no sum over parts"):
        derived_block_costs(SPACE, lambda arch: together(arch) if arch["depth"] == 3 else parts(arch))


def test_too_many_axes_at_a_time_are_refused():
    space = Space(axes=tuple(Axis(name=f"keep{n}", choices=(0.3, 0.5, 0.6, 1.0)) for n in range(9)))

    def one(arch):
        grown = {0.3: 0, 0.5: 1, 0.6: 5, 1.0: 9}  # no polynomial of second degree
        return [convolution("all", 3, 1 + sum(grown[choice] * 10**at for at, (_, choice) in enumerate(arch.choices)))]

    with pytest.raises(ConfigurationError, match=r"keep0 and keep1 .* 262,144 combinations"):
        derived_block_costs(space, one)
