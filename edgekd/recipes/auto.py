"""Recipe `auto`: a `distill` whose loss and augmentations are chosen by short trainings first.

``recipe: auto``, with options ``recipe: {auto: {share: 0.3}}``, or before other stages ``recipe: [auto, quantize]``.
Losses first, with the default crop and flip; then augmentations, with the best loss. Both by successive halving
(Jamieson & Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization", AISTATS, arXiv
1502.07943): all train for a quarter of the short epochs, the better half by validation for half of them, and so on up
to all of them. While no score is clearly above chance nothing is dropped, and other augmentations have to beat crop and
flip in the last round. Short trainings favour what learns fast, and underrate augmentations that make a task harder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, PositiveInt

from edgekd.distill.stage import Distill
from edgekd.errors import EdgeKDError, Problem
from edgekd.records import Digest, Record, digest_json
from edgekd.stages import FLOAT_WEIGHTS, StageContext
from edgekd.store.records import AutoRecord, AutoScore
from edgekd.students._protocol import Student

__all__ = ["Auto", "Standing", "standing", "standing_of"]

_LOSSES: Mapping[str, Any] = {
    "kd": {"kd": {"temperature": 4}},
    "kd, temperature 2": {"kd": {"temperature": 2}},
    "dkd": {"dkd": {}},
    "dist": {"dist": {}},
    "fitnet": {"fitnet": {}},
    "simkd": {"simkd": {}},
    "kd, temperature 8": {"kd": {"temperature": 8}},
    "ce": {"ce": {}},
    "reviewkd": {"reviewkd": {}},  # last: of a tiny student it takes several times as long as all others
}
_VIEWS: Mapping[str, Any] = {
    "crop and flip": {},
    "with randaugment": {"randaugment": True},
    "with mixup": {"mixup": True},
}


_PLAIN_VIEWS = next(iter(_VIEWS))  # baseline of the augmentations


class Auto(Record):
    """Options of `auto`. A placeholder in a recipe until it is replaced by its choice; it never runs itself."""

    name: ClassVar[str] = "auto"
    requires: ClassVar[frozenset[str]] = FLOAT_WEIGHTS
    per_backend: ClassVar[bool] = False

    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2  # of the search's budget that choosing may take
    short: PositiveInt = 8  # epochs of the longest trial
    epochs: PositiveInt = 40  # of the training that follows

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs of each round of trials."""
        return tuple(sorted({max(1, self.short // 4), max(1, self.short // 2), self.short}))

    def losses(self) -> Mapping[str, Distill]:
        """Return the candidates of the first phase by name, each in full length."""
        return {name: self._stage(loss, {}) for name, loss in _LOSSES.items()}

    def views(self, loss: str) -> Mapping[str, Distill]:
        """Return the candidates of the second phase, with the loss of this name."""
        return {name: self._stage(_LOSSES[loss], views) for name, views in _VIEWS.items()}

    def check(self, student: Student, context: StageContext) -> Sequence[Problem]:  # noqa: ARG002  # the Protocol's
        """Return one problem: the choice has to be made first."""
        return [
            Problem("auto: no loss and no views have been chosen yet", "run it by edgekd search, compress or distill")
        ]

    def key(self, inputs: Digest) -> Digest:
        """Return the digest of the options; no result is stored under it."""
        return digest_json({"stage": self.name, "options": self.model_dump(mode="json"), "inputs": inputs})

    def run(self, student: Student, context: StageContext) -> Student:
        """Raise EdgeKDError."""
        problem = self.check(student, context)[0]
        raise EdgeKDError(problem.message, problem.remedy)

    def _stage(self, loss: Mapping[str, Any], views: Mapping[str, Any]) -> Distill:
        return Distill.model_validate({"loss": loss, "augment": views, "epochs": self.epochs})


class Standing(NamedTuple):
    """State of successive halving: the next trial (None: finished), and the leader."""

    todo: tuple[str, int] | None  # name, epochs
    leader: str | None  # by the last rung that all who reached it were scored on


def standing(
    names: Sequence[str], scores: Sequence[AutoScore], rungs: Sequence[int], least: float = 0.0, kept: str = ""
) -> Standing:
    """Compute the state from recorded scores. Of equal scores the earlier name leads; diverged trainings come last.

    A rung on which no score is above ``least`` drops nothing. ``kept`` is never dropped: the others have to beat it on
    the last rung too.
    """
    alive, leader = list(names), None
    for epochs in rungs:
        known = {score.option: score.validation for score in scores if score.epochs == epochs}
        missing = [name for name in alive if name not in known]
        ranked = sorted((name for name in alive if name in known), key=lambda name: -_rank(known[name]))
        if missing:
            if leader is None and ranked:
                leader = ranked[0]
            return Standing((missing[0], epochs), leader)
        leader = ranked[0] if ranked else None
        if ranked and _rank(known[ranked[0]]) > least:
            half = ranked[: math.ceil(len(ranked) / 2)]
            alive = [name for name in alive if name in half or name == kept]
    return Standing(None, leader)


def standing_of(record: AutoRecord, phase: Literal["loss", "views"], auto: Auto) -> Standing:
    """Return the state of one phase of a record."""
    kept = _PLAIN_VIEWS if phase == "views" else ""
    return standing(record.names(phase), record.of(phase), auto.rungs, record.least, kept)


def _rank(validation: float | None) -> float:
    return -math.inf if validation is None else validation
