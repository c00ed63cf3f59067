"""Most probable archs of a trained choice that are predicted to come near the latency budget, in order.

The mode of the choice need not keep the budget, or need not spend it: the latency model has errors, and the annealed
cost is an expectation. So the result is repaired to the most probable archs that spend most of it; those that leave
more of it unused come after them. Archs are enumerated by probability (the k best of a sum of one logit an axis, best
first; on axes that do not exist in an arch, with their most probable choice), and each is looked up in the model.

Evenly scaled archs, whose every width (or depth) is equally far up its axis, are added: they are what a person would
try, and what the trained choice has to beat by the same trials.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence

from edgekd.ir.space import Arch, Axis, Space
from edgekd.search._protocol import Knowledge
from edgekd.students.supernet.block_costs import Cost

__all__ = ["nearest_archs", "next_of"]

_KEPT, _KEPT_BELOW = 40, 8
_LOOKED_AT = 20_000
_SPENT = 0.85  # of the budget: an arch below that leaves accuracy unused
_EVEN_TRIES = 2
_MARGIN = 1.25  # over the budget: the first trials correct a model that overestimates


def nearest_archs(
    axes: Sequence[Axis], logits: Mapping[str, Sequence[float]], cost: Cost, budget_us: float
) -> tuple[tuple[tuple[int, float], ...], tuple[int, ...]]:
    """Return (index, predicted latency in microseconds) in the order to try them, and the evenly scaled indices."""
    found = _by_choice(axes, logits, cost, budget_us)
    space = Space(axes=tuple(axes))
    even = {space.index(arch): round(cost.of(arch, axes), 6) for arch in _even(axes)}
    near = {index: us for index, us in even.items() if _SPENT / _MARGIN * budget_us <= us <= _MARGIN * budget_us}
    knowledge = {index for index, _ in found}
    more = tuple((index, us) for index, us in near.items() if index not in knowledge)
    return (*found, *more), tuple(near)


def _by_choice(
    axes: Sequence[Axis], logits: Mapping[str, Sequence[float]], cost: Cost, budget_us: float
) -> tuple[tuple[int, float], ...]:
    space = Space(axes=tuple(axes))
    found, below = list[tuple[int, float]](), list[tuple[int, float]]()
    met = set[Arch]()  # an arch that lacks an axis comes once for each of its choices
    for looked, arch in enumerate(_by_probability(axes, logits)):
        predicted = cost.of(arch, axes)
        if predicted <= _MARGIN * budget_us and arch not in met:
            met.add(arch)
            near = predicted >= _SPENT / _MARGIN * budget_us
            (found if near else below).append((space.index(arch), round(predicted, 6)))
        if len(found) == _KEPT or looked == _LOOKED_AT:
            break
    found += below[:_KEPT_BELOW]
    if any(predicted <= budget_us for _, predicted in found):
        return tuple(found)
    arch = _brought_down(axes, logits, cost, budget_us)
    return (*found, (space.index(arch), round(cost.of(arch, axes), 6)))


def next_of(knowledge: Knowledge) -> int | None:
    """Next index to try: the first untried one whose predicted and corrected latency keeps the budget; None without
    one.

    An arch that spends most of the budget goes before those that don't. After the first come two that are evenly
    scaled, those that spend most. The correction is the median of measured over predicted among the trials so far.
    """
    ranking = knowledge.ranking
    if ranking is None:
        return None
    space, predicted = knowledge.plan.space, dict(zip(ranking.order, ranking.predicted_us, strict=True))
    done = {space.index(c.arch) for c in (*(t.candidate for t in knowledge.trials), *knowledge.pending)}
    ratios = []
    for trial in knowledge.trials:
        low = next((figure.value for figure in trial.figures if figure.metric == "latency.p5"), None)
        index = space.index(trial.candidate.arch)
        if low is not None and index in predicted:
            ratios.append(low / predicted[index])
    factor = sorted(ratios)[len(ratios) // 2] if ratios else 1.0
    allowed = set(knowledge.allowed.get(ranking.deployment, ()))
    shares = {index: predicted[index] * factor / ranking.budget_us for index in ranking.order}
    kept = [index for index in ranking.order if index in allowed and index not in done and shares[index] <= 1.0]
    even = [index for index in kept if index in ranking.even and shares[index] >= _SPENT]
    if done and even and len(done.intersection(ranking.even)) < _EVEN_TRIES:
        return max(even, key=lambda index: (shares[index], -index))
    return next((index for index in kept if shares[index] >= _SPENT), kept[0] if kept else None)


def _by_probability(axes: Sequence[Axis], logits: Mapping[str, Sequence[float]]) -> Iterator[Arch]:
    """Every arch of a space, by the sum of its logits, largest first."""
    orders = [_by_logit(logits[axis.name]) for axis in axes]
    drops = [
        [logits[axis.name][order[0]] - logits[axis.name][rank] for rank in order]
        for axis, order in zip(axes, orders, strict=True)
    ]
    # a place holds the rank on each axis; each is pushed once, by its predecessor in its last changed axis
    heap: list[tuple[float, tuple[int, ...]]] = [(0.0, (0,) * len(axes))]
    while heap:
        lost, places = heapq.heappop(heap)
        yield _arch(axes, [order[place] for order, place in zip(orders, places, strict=True)])
        last = max((at for at, place in enumerate(places) if place), default=0)
        for at in range(last, len(axes)):
            if places[at] + 1 < len(axes[at].choices):
                more = drops[at][places[at] + 1] - drops[at][places[at]]
                heapq.heappush(heap, (lost + more, (*places[:at], places[at] + 1, *places[at + 1 :])))


def _even(axes: Sequence[Axis]) -> Iterator[Arch]:
    """Evenly scaled archs: axes of one kind (`width1`, `width2`, ...) at equal height, each kind at each of its
    heights.
    """
    kinds = [axis.name.rstrip("0123456789") for axis in axes]
    heights = {kind: max(len(a.choices) for a, k in zip(axes, kinds, strict=True) if k == kind) for kind in kinds}
    for places in itertools.product(*(range(height) for height in heights.values())):
        share = {kind: at / max(1, heights[kind] - 1) for kind, at in zip(heights, places, strict=True)}
        yield _arch(axes, [round(share[kind] * (len(a.choices) - 1)) for a, kind in zip(axes, kinds, strict=True)])


def _by_logit(row: Sequence[float]) -> list[int]:
    """Ranks of an axis' choices, most probable first; the smaller of equals."""
    return sorted(range(len(row)), key=lambda rank: (-row[rank], rank))


def _brought_down(axes: Sequence[Axis], logits: Mapping[str, Sequence[float]], cost: Cost, budget_us: float) -> Arch:
    """Lower the most probable arch one choice at a time, where a microsecond saved costs the least logit."""
    ranks = tuple(_by_logit(logits[axis.name])[0] for axis in axes)
    while (now := cost.of(_arch(axes, ranks), axes)) > budget_us:
        steps = []
        for at, axis in enumerate(axes):
            if ranks[at]:
                lower = (*ranks[:at], ranks[at] - 1, *ranks[at + 1 :])
                saved = now - cost.of(_arch(axes, lower), axes)
                lost = logits[axis.name][ranks[at]] - logits[axis.name][ranks[at] - 1]
                if saved > 0:
                    steps.append((lost / saved, lower))
        if not steps:
            break
        ranks = min(steps)[1]
    return _arch(axes, ranks)


def _arch(axes: Sequence[Axis], ranks: Sequence[int]) -> Arch:
    return Space(axes=tuple(axes)).arch({axis.name: axis.choices[rank] for axis, rank in zip(axes, ranks, strict=True)})
