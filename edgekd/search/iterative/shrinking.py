"""Pruning step of an iteration and the stopping rule, decided from recorded figures alone.

Progressive shrinking after Yang et al. 2018, "NetAdapt", ECCV, arXiv 1804.03230: step by step, each measured on the
device and recovered a little before the next. They shrink every layer until each gains the same time and keep the most
accurate; here a step is the next choice of one axis, so steps gain differently, and the one is taken that gains most
for the accuracy it costs. Both are known before any training: the accuracy with BatchNorm recalibrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from edgekd.ir.space import Arch, Space
from edgekd.store.records import RoundOption, RoundRecord
from edgekd.targets.target import Target

__all__ = ["Gain", "chosen_step", "gain_wanted", "next_steps", "why_stopped"]

Gain = Literal["time", "size"]
_LEAST_LOSS = 0.005  # losses of accuracy below half a percent count as equal: validation samples are few


def next_steps(space: Space, arch: Arch) -> tuple[Arch, ...]:
    """Archs one choice smaller on one axis, in the order of the axes; a category is neither smaller nor larger.

    Axes that a step leaves without a meaning go with it.
    """
    found = []
    for axis in space.axes:
        place = axis.choices.index(arch[axis.name]) if axis.name in arch and not axis.categorical else 0
        if place:
            found.append(space.arch({**dict(arch.choices), axis.name: axis.choices[place - 1]}))
    return tuple(found)


def gain_wanted(target: Target, before: RoundRecord) -> Gain:
    """Quantity still to be reduced: size where the verdict misses only size or memory, else time."""
    best = before.best
    if best is None:
        return "time"
    missed = {v.limit.metric for v in best.verdict.limits if v.limit.hard and v.answer.value != "holds"}
    budgets = {metric for metric in missed if metric != "accuracy"}
    if not any(limit.hard and limit.metric != "accuracy" for limit in target.limits):
        return "time"
    return "size" if budgets and all(metric.startswith(("size.", "memory.")) for metric in budgets) else "time"


def chosen_step(
    before: RoundOption, options: Sequence[RoundOption], wanted: Gain, least_gain: float, noise: float
) -> RoundOption | None:
    """Return the option that gains most for its cost; the first of equals. None where none gains enough."""
    worth = [
        (gain / max(_LEAST_LOSS, (before.accuracy or 0.0) - option.accuracy), option)
        for option in options
        if option.accuracy is not None
        and (gain := _gain(before, option, wanted)) is not None
        and gain > (max(least_gain, noise) if wanted == "time" else least_gain)
    ]
    return max(worth, key=lambda pair: pair[0])[1] if worth else None


def why_stopped(record: RoundRecord, floor: float | None) -> str:
    """Reason why no iteration follows this one; empty where one does. Whether the target is met is not checked here."""
    if record.arch is None:
        return "no smaller step gains enough" if record.options else "there is no smaller step in the space"
    if record.best is None:
        return "it ran on no backend"
    if floor is not None and record.accuracy is not None and record.accuracy.value < floor:
        return f"accuracy fell to {record.accuracy.value:.1%}, below the floor, after the whole recipe"
    return ""


def _gain(before: RoundOption, option: RoundOption, wanted: Gain) -> float | None:
    """Share of a call's time, or of the file's size, that the step saves."""
    old, new = (before.p5_us, option.p5_us) if wanted == "time" else (before.size_bytes, option.size_bytes)
    return None if not old or new is None else 1.0 - new / old
