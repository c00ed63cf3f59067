"""Verdict of measured figures against a target: a pure function of figures and limits.

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
    """Answer to one limit: holds, fails, unstable or unknown."""

    HOLDS = "holds"
    FAILS = "fails"
    UNSTABLE = "unstable"
    UNKNOWN = "unknown"


class LimitVerdict(Record):
    """Verdict on one limit: the figure compared, and the margin left: positive is good, as a share of the bound."""

    limit: Limit
    figure: Figure | None
    answer: Answer
    margin: float | None

    def unsure(self, share: float) -> LimitVerdict:
        """Return the verdict for a figure with a relative error of ``share``: `unstable` where that could change the
        answer. Memory does not depend on a machine's speed.
        """
        figure, sign = self.figure, 1.0 if self.limit.upper else -1.0
        decided = self.answer in (Answer.HOLDS, Answer.FAILS) and not self.limit.metric.startswith("memory.")
        if figure is None or figure.low is None or not decided:
            return self
        far, near = _ends(figure, self.limit.upper)
        end = far * (1.0 + sign * share) if self.answer is Answer.HOLDS else near * (1.0 - sign * share)
        stays = (sign * end <= sign * self.limit.bound) == (self.answer is Answer.HOLDS)
        return self if stays else self.but(answer=Answer.UNSTABLE)


class Verdict(Record):
    """Verdict on all limits of a target. ``holds`` needs only the hard ones."""

    limits: tuple[LimitVerdict, ...]

    @property
    def answer(self) -> Answer:
        """Worst answer among the hard limits."""
        worst = [Answer.FAILS, Answer.UNSTABLE, Answer.UNKNOWN]
        answers = {verdict.answer for verdict in self.limits if verdict.limit.hard}
        return next((answer for answer in worst if answer in answers), Answer.HOLDS)

    @property
    def untrained(self) -> Verdict:
        """The verdict on a file with untrained weights: without accuracy."""
        return self.but(limits=tuple(one for one in self.limits if one.limit.metric != "accuracy"))

    def unsure(self, share: float) -> Verdict:
        """Return the verdict for a machine whose own speed changed by ``share`` during measurement."""
        return self.but(limits=tuple(limit.unsure(share) for limit in self.limits))

    @property
    def holds(self) -> bool:
        """True if every hard limit holds."""
        return self.answer is Answer.HOLDS


def judge(target: Target, figures: Iterable[Figure]) -> Verdict:
    """Compare every limit of the target with its figure."""
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
