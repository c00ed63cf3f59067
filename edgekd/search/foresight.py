"""The second mask: what would break a limit of time by the latency predictor is not proposed.

Reads networks.json, known.json, anchors/*.json, trials/*.json, arms.json and the target; its result is
predictors/*.json. Every measurement the search takes anyway is a reading, and so is what earlier work on this device
left in its tables. A fit is made before a batch where readings have grown by a third since the last one, and holds
until the next. An arch is left out on an arm only where the lower end of its 90 % interval is beyond the limit: the
less the predictor is worth, the wider the interval, and the less it removes. A mask that leaves nothing is no mask.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from edgekd.events import Events
from edgekd.kernels import Kernels
from edgekd.measure.predictor import ENOUGH_ALONE, LatencyPredictor, fit_predictor
from edgekd.search.budget import Budget
from edgekd.search.feasible import low_budget_us, low_us
from edgekd.search.masks import Allowed
from edgekd.store.predicted import ArmPredictor, KnownRecord, NetworksRecord, PredictorsRecord, Reading
from edgekd.store.records import Arm, ArmsRecord, FeaturesRecord, PlanRecord, TrialRecord
from edgekd.store.run import Run
from edgekd.students._protocol import Arch

__all__ = ["Foresight", "fit_due", "fitted"]

_FEWEST = 6  # readings of an arm, below which nothing is fitted
_GROWN = 4 / 3

Readings = Mapping[Arm, Sequence[Reading]]


@dataclass(frozen=True)
class Foresight:
    """What may be proposed, batch by batch. Deciding reads records alone, so that a replay decides alike."""

    run: Run
    plan: PlanRecord
    features: FeaturesRecord
    arms: ArmsRecord
    allowed: Allowed
    _left: dict[int, Allowed] = field(default_factory=dict, repr=False)  # by record: a whole space takes seconds

    def before(self, batch: int, trials: Sequence[TrialRecord], events: Events, budget: Budget) -> Allowed:
        """What may be proposed in a batch, after a fit where one is due."""
        trials = [trial for trial in trials if trial.batch < batch]
        last = self._last(batch)
        if self._bound_us is not None and (last is None or last.batch < batch):
            readings = self.readings(trials)
            if fit_due(readings, last):
                self._fit(batch, readings, self._bound_us, events, budget)
        return self.at(batch, trials)

    def at(self, batch: int, trials: Sequence[TrialRecord]) -> Allowed:
        """What the recorded fit leaves; everything where there is none."""
        last = self._last(batch)
        if last is None:
            return self.allowed
        if last.number not in self._left:
            readings = self.readings([trial for trial in trials if trial.batch < last.batch])
            self._left[last.number] = self.left(last.arms, readings)
        left = self._left[last.number]
        return left if self._untried(left, [trial for trial in trials if trial.batch < batch]) else self.allowed

    def readings(self, trials: Sequence[TrialRecord]) -> dict[Arm, list[Reading]]:
        """What is known on each kept arm: earlier work's, the anchors' and these trials'."""
        known = self.run.known() or KnownRecord(tables=())
        found: dict[Arm, dict[Kernels, float]] = {
            arm: {_alike(reading.kernels): reading.low_us for reading in known.of(arm)} for arm in self.arms.kept
        }
        seen = [(r.arm, r.arch, r.low_us.value) for anchor in self.run.anchors() for r in anchor.readings if r.low_us]
        seen += [
            (Arm.of(trial.candidate), trial.candidate.arch, low)
            for trial in trials
            if (low := low_us(trial.figures)) is not None
        ]
        for arm, arch, low in seen:
            if arm in found and arch in self._networks:
                found[arm][_alike(self._kernels(arm, arch))] = low
        return {
            arm: [Reading(kernels=kernels, low_us=low) for kernels, low in readings.items()]
            for arm, readings in found.items()
        }

    def left(self, fits: Sequence[ArmPredictor], readings: Readings) -> Allowed:
        """What the fits leave on each arm; all of it where that would be nothing at all."""
        left: dict[Arm, tuple[int, ...]] = dict(self.allowed)
        for one, predictor in zip(fits, _predictors(fits, readings), strict=True):
            indices = self.allowed.get(one.arm, ())
            found = predictor.predict([self._kernels(one.arm, self.plan.space.at(index)) for index in indices])
            left[one.arm] = tuple(i for i, at in zip(indices, found, strict=True) if at.least_us <= one.bound_us)
        return left if any(left.values()) else self.allowed

    def _untried(self, left: Allowed, trials: Sequence[TrialRecord]) -> bool:
        """Whether anything is left to try: a prediction may save trials, but not end a search."""
        tried = {(Arm.of(trial.candidate), trial.candidate.arch) for trial in trials}
        return any((arm, self.plan.space.at(index)) not in tried for arm, indices in left.items() for index in indices)

    def _last(self, batch: int) -> PredictorsRecord | None:
        return next((record for record in reversed(self.run.predictors()) if record.batch <= batch), None)

    def _fit(self, batch: int, readings: Readings, bound_us: float, events: Events, budget: Budget) -> None:
        begun = time.monotonic()
        fits = fitted(readings, bound_us)
        left = self.left(fits, readings)
        removed = {arm: len(indices) - len(left[arm]) for arm, indices in self.allowed.items()}
        record = PredictorsRecord(
            number=len(self.run.predictors()),
            batch=batch,
            arms=tuple(one.but(removed=removed.get(one.arm, 0)) for one in fits),
            seconds=time.monotonic() - begun,
            ended_s=budget.spent_s(),
        )
        self.run.write(record)
        for one in record.arms:
            told = f"{one.samples} measured, off by {one.held_out.median:.1%}, by {one.held_out.p95:.1%} at 95 %"
            of = len(self.allowed.get(one.arm, ()))
            events.line(f"predicted  {one.arm}: {one.removed:,} of {of:,} archs out ({told})")

    @cached_property
    def _bound_us(self) -> float | None:
        found = low_budget_us(self.run.header.target, self.arms)
        return found[0] if found and self.plan.predict and self._networks else None

    @cached_property
    def _networks(self) -> dict[Arch, Kernels]:
        record = self.run.networks() or NetworksRecord(kernels=(), networks=())
        return dict(zip(map(self.plan.space.at, self.features.indices), record.unpacked(), strict=False))

    @cached_property
    def _besides(self) -> dict[Arm, Kernels]:
        """What files of each arm have beside their arch's own kernels: scaling of the input, for example."""
        found: dict[Arm, Kernels] = {}
        for reading in (reading for anchor in self.run.anchors() for reading in anchor.readings):
            if reading.kernels and reading.arch in self._networks and reading.arm not in found:
                more = Counter(reading.kernels) - Counter(self._networks[reading.arch])
                found[reading.arm] = tuple(more.elements())
        return found

    def _kernels(self, arm: Arm, arch: Arch) -> Kernels:
        return (*self._besides.get(arm, ()), *self._networks[arch])


def _alike(kernels: Kernels) -> Kernels:
    """In an order of its own, so that one network is one reading, whoever took it apart."""
    return tuple(sorted(kernels))


def fit_due(readings: Readings, last: PredictorsRecord | None) -> bool:
    """Whether some arm has so many readings that a fit, or another one, is worth its time."""
    before = {one.arm: one.samples for one in last.arms} if last else {}
    return any(len(found) >= max(_FEWEST, _GROWN * before.get(arm, 0)) for arm, found in readings.items())


def fitted(readings: Readings, bound_us: float) -> tuple[ArmPredictor, ...]:
    """Every arm that has enough, the one with most readings first: it is the prior of those with few."""
    order = sorted((arm for arm in readings if len(readings[arm]) >= _FEWEST), key=lambda arm: -len(readings[arm]))
    records = list[ArmPredictor]()
    first: LatencyPredictor | None = None
    for arm in order:
        prior = first if len(readings[arm]) < ENOUGH_ALONE else None
        made = fit_predictor(readings[arm], prior)
        first = first or made
        assert made.held_out is not None
        records.append(
            ArmPredictor(
                arm=arm,
                samples=len(readings[arm]),
                costs=made.costs,
                scales=made.scales,
                widths=made.widths,
                held_out=made.held_out,
                prior=0 if prior is not None else None,
                bound_us=bound_us,
                removed=0,
            )
        )
    return tuple(records)


def _predictors(fits: Sequence[ArmPredictor], readings: Readings) -> list[LatencyPredictor]:
    made = list[LatencyPredictor]()
    for one in fits:
        made.append(
            LatencyPredictor(
                costs=one.costs,
                scales=one.scales,
                readings=tuple(readings[one.arm]),
                widths=one.widths,
                held_out=one.held_out,
                prior=None if one.prior is None else made[one.prior],
            )
        )
    return made
