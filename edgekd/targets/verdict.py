"""Whether measured figures meet a target: a pure function of figures and limits.

The end of the interval that is nearer the limit decides. Where the interval straddles the limit the answer is
``unstable``, never a guess; where no figure exists it is ``unknown``, which doesn't hold either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from edgekd.evidence import EvidenceKind, Figure
from edgekd.records import Record
from edgekd.targets.target import Limit, Target

__all__ = ["Answer", "LimitVerdict", "Verdict", "judge"]


class Answer(str, Enum):
    """What is known of one limit."""

    HOLDS = "holds"
    FAILS = "fails"
    UNSTABLE = "unstable"
    UNKNOWN = "unknown"


class LimitVerdict(Record):
    """One limit, the figure it was held against, and the room left: positive is good, as a share of the bound."""

    limit: Limit
    figure: Figure | None
    answer: Answer
    margin: float | None

    def unsure(self, share: float) -> LimitVerdict:
        """Held against a figure that may be off by ``share``: `unstable` where that could turn the answer."""
        figure, sign = self.figure, 1.0 if self.limit.upper else -1.0
        if figure is None or figure.low is None or self.answer not in (Answer.HOLDS, Answer.FAILS):
            return self
        far, near = _ends(figure, self.limit.upper)
        end = far * (1.0 + sign * share) if self.answer is Answer.HOLDS else near * (1.0 - sign * share)
        stays = (sign * end <= sign * self.limit.bound) == (self.answer is Answer.HOLDS)
        return self if stays else self.but(answer=Answer.UNSTABLE)


class Verdict(Record):
    """All limits of a target. ``holds`` asks only the hard ones."""

    limits: tuple[LimitVerdict, ...]

    @property
    def answer(self) -> Answer:
        """The worst answer among the hard limits."""
        worst = [Answer.FAILS, Answer.UNSTABLE, Answer.UNKNOWN]
        answers = {verdict.answer for verdict in self.limits if verdict.limit.hard}
        return next((answer for answer in worst if answer in answers), Answer.HOLDS)

    def unsure(self, share: float) -> Verdict:
        """The same on a machine whose own speed changed by ``share`` while it was measured."""
        return self.but(limits=tuple(limit.unsure(share) for limit in self.limits))

    @property
    def holds(self) -> bool:
        """Whether every hard limit holds."""
        return self.answer is Answer.HOLDS


def judge(target: Target, figures: Iterable[Figure]) -> Verdict:
    """Hold every limit of the target against its figure."""
    by_metric = {figure.metric: figure for figure in figures}
    return Verdict(limits=tuple(_judge_one(limit, by_metric.get(limit.metric)) for limit in target.limits))


def _judge_one(limit: Limit, figure: Figure | None) -> LimitVerdict:
    if figure is None or (figure.kind is EvidenceKind.MODELLED and not limit.modelled):
        return LimitVerdict(limit=limit, figure=None, answer=Answer.UNKNOWN, margin=None)
    sign = 1.0 if limit.upper else -1.0
    far, near = _ends(figure, limit.upper)
    if sign * far <= sign * limit.bound:
        answer = Answer.HOLDS
    elif sign * near > sign * limit.bound:
        answer = Answer.FAILS
    else:
        answer = Answer.UNSTABLE
    margin = sign * (limit.bound - far) / limit.bound if limit.bound else None
    return LimitVerdict(limit=limit, figure=figure, answer=answer, margin=margin)


def _ends(figure: Figure, upper: bool) -> Sequence[float]:
    return (figure.upper, figure.lower) if upper else (figure.lower, figure.upper)
