"""Predicted filter: archs predicted to break a limit of time or memory are not proposed.

Reads networks.json, prior_tables.json, reference-archs/*.json, trials/*.json, deployments.json and the target; writes
predictors/*.json. Every measurement of the search is an observation, and so is every row in this device's tables from
earlier work; tables of other devices, or of other states of this one, are priors. A fit is made before a batch where
observations have grown by a third since the last one, once the measured whole model of a user was tried, and holds
until the next. An arch is removed on a deployment only
where the lower end of its 90 % interval is beyond the limit: the worse the predictor, the wider the interval, and the
less it removes. An arch with a kind of kernel that no observation has is never removed. A filter that would leave
nothing is ignored.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from edgekd.devices._protocol import Measurement
from edgekd.events import Events
from edgekd.ir.kernels import Kernels
from edgekd.ir.space import Arch
from edgekd.measure.memory import fit_memory, predict_memory
from edgekd.measure.prediction.predictor import ENOUGH_ALONE, LatencyPredictor, fit_predictor
from edgekd.search.budget import Budget
from edgekd.search.space.feasible import p5_budget_us, p5_us
from edgekd.search.space.filters import Allowed
from edgekd.search.space.prior_tables import OtherDevices
from edgekd.store.predicted import (
    DeploymentMemory,
    DeploymentPredictor,
    NetworksRecord,
    Observation,
    PredictorsRecord,
    PriorTablesRecord,
)
from edgekd.store.records import Deployment, DeploymentsRecord, FeaturesRecord, PlanRecord, TrialRecord
from edgekd.store.run import Run
from edgekd.units import format_bytes

__all__ = ["PredictedFilter", "fit_due", "fitted", "fitted_memory"]

_FEWEST = 6  # observations of a deployment, below which nothing is fitted
_GROWN = 4 / 3

Observations = Mapping[Deployment, Sequence[Observation]]


@dataclass(frozen=True)
class PredictedFilter:
    """Predicted filter, batch by batch. It decides from records alone, so that a replay decides alike."""

    run: Run
    plan: PlanRecord
    features: FeaturesRecord
    deployments: DeploymentsRecord
    allowed: Allowed
    _left: dict[int, Allowed] = field(default_factory=dict, repr=False)  # by record: a whole space takes seconds

    def fit_before(self, batch: int, trials: Sequence[TrialRecord], events: Events, budget: Budget) -> None:
        """Fit the predictors anew before a batch, where a fit is due."""
        last = self._last(batch)
        bounded = self._bound_us is not None or self._bound_bytes is not None
        if bounded and (last is None or last.batch < batch):
            observations = self.observations([trial for trial in trials if trial.batch < batch])
            if fit_due(observations if self._bound_us is not None else with_memory(observations), last):
                self._fit(batch, observations, events, budget)

    def at(self, batch: int, trials: Sequence[TrialRecord], missed: Collection[Deployment] = ()) -> Allowed:
        """Return the archs that the recorded fit allows; all where there is none, or where it leaves nothing untried.

        ``missed``: deployments on which the whole model, the space's last index, is not tried again.
        """
        last = self._last(batch)
        if last is None:
            return self.allowed
        if last.number not in self._left:
            observations = self.observations([trial for trial in trials if trial.batch < last.batch])
            self._left[last.number] = self.left(
                last.deployments, last.memories, observations, self._other_devices(last)
            )
        left = self._left[last.number]
        earlier = [trial for trial in trials if trial.batch < batch]
        return left if self._untried(left, earlier, missed) else self.allowed

    def observations(self, trials: Sequence[TrialRecord]) -> dict[Deployment, list[Observation]]:
        """Observations of each kept deployment: from earlier work, the reference archs and these trials."""
        prior_tables = self.run.prior_tables() or PriorTablesRecord(tables=())
        found: dict[Deployment, dict[Kernels, Observation]] = {
            deployment: {
                (alike := _alike(observation.kernels)): observation.but(kernels=alike)
                for observation in prior_tables.of(deployment)
            }
            for deployment in self.deployments.kept
        }
        seen = [
            (r.deployment, r.arch, r.p5_us.value, _memory_bytes(r.measurement))
            for reference_arch in self.run.reference_archs()
            for r in reference_arch.observations
            if r.p5_us
        ]
        seen += [
            (Deployment.of(trial.candidate), trial.candidate.arch, low, _memory_bytes(trial.measurement))
            for trial in trials
            if (low := p5_us(trial.figures)) is not None
        ]
        for deployment, arch, low, memory in seen:
            if deployment in found and arch in self._networks:
                kernels = _alike(self._kernels(deployment, arch))
                found[deployment][kernels] = Observation(kernels=kernels, p5_us=low, memory_bytes=memory)
        return {deployment: list(observations.values()) for deployment, observations in found.items()}

    def left(
        self,
        fits: Sequence[DeploymentPredictor],
        memories: Sequence[DeploymentMemory],
        observations: Observations,
        other_devices: OtherDevices,
    ) -> Allowed:
        """Archs that the fits allow on each deployment: by time, then by memory. A fit that allows none is ignored."""
        left: dict[Deployment, tuple[int, ...]] = dict(self.allowed)
        for one, predictor in zip(fits, _predictors(fits, observations, other_devices), strict=True):
            indices = left.get(one.deployment, ())
            networks = [self._kernels(one.deployment, self.plan.space.at(index)) for index in indices]
            found = zip(indices, predictor.predict(networks), predictor.unseen(networks), strict=True)
            left[one.deployment] = tuple(i for i, at, unseen in found if at.least_us <= one.bound_us or unseen)
        fast = left if any(left.values()) else dict(self.allowed)
        small = dict(fast)
        for memory in memories:
            indices = fast.get(memory.deployment, ())
            small[memory.deployment] = tuple(i for i in indices if self._least_bytes(memory, i) <= memory.bound_bytes)
        return small if any(small.values()) else fast

    def _least_bytes(self, one: DeploymentMemory, index: int) -> float:
        _, least, _ = predict_memory(one.fit, self._kernels(one.deployment, self.plan.space.at(index)))
        return least

    def _untried(self, left: Allowed, trials: Sequence[TrialRecord], missed: Collection[Deployment]) -> bool:
        """Tell whether an allowed arch is untried: a prediction may save trials, but not end a search."""
        tried = {(Deployment.of(trial.candidate), trial.candidate.arch) for trial in trials}
        tried |= {(deployment, self.plan.space.at(self.plan.space.size - 1)) for deployment in missed}
        return any(
            (deployment, self.plan.space.at(index)) not in tried
            for deployment, indices in left.items()
            for index in indices
        )

    def _last(self, batch: int) -> PredictorsRecord | None:
        return next((record for record in reversed(self.run.predictors()) if record.batch <= batch), None)

    def _fit(self, batch: int, observations: Observations, events: Events, budget: Budget) -> None:
        begun, other_devices = time.monotonic(), self._other_devices(self._last(batch))
        fits = () if self._bound_us is None else fitted(observations, self._bound_us, other_devices)
        memories = () if self._bound_bytes is None else fitted_memory(observations, self._bound_bytes)
        fast = self.left(fits, (), observations, other_devices)
        left = self.left(fits, memories, observations, other_devices) if memories else fast

        def out(of: Allowed, left: Allowed, deployment: Deployment) -> int:
            return len(of.get(deployment, ())) - len(left.get(deployment, ()))

        record = PredictorsRecord(
            number=len(self.run.predictors()),
            batch=batch,
            deployments=tuple(one.but(removed=out(self.allowed, fast, one.deployment)) for one in fits),
            memories=tuple(one.but(removed=out(fast, left, one.deployment)) for one in memories),
            priors=other_devices.fits,
            seconds=time.monotonic() - begun,
            ended_s=budget.spent_s(),
        )
        self.run.write(record)
        for one in record.deployments:
            words = f"{one.samples} measured, off by {one.held_out.median:.1%}, by {one.held_out.p95:.1%} at 95 %"
            if one.prior_table is not None:
                words += f", from {other_devices.words(one.prior_table, self.run.target.device)}"
            events.line(
                f"predicted  {one.deployment}: {one.removed:,} of "
                f"{len(self.allowed.get(one.deployment, ())):,} archs out ({words})"
            )
        for memory in record.memories:
            of = len(fast.get(memory.deployment, ()))
            words = f"for memory; {memory.fit.samples} measured, off by {format_bytes(memory.fit.error_bytes)} at 90 %"
            events.line(f"predicted  {memory.deployment}: {memory.removed:,} of {of:,} archs out ({words})")

    def _other_devices(self, last: PredictorsRecord | None) -> OtherDevices:
        prior_tables = self.run.prior_tables() or PriorTablesRecord(tables=())
        return OtherDevices(prior_tables.priors, last.priors if last is not None else ())

    @cached_property
    def _bound_us(self) -> float | None:
        found = p5_budget_us(self.run.target, self.deployments)
        return found[0] if found and self.plan.predict and self._networks else None

    @cached_property
    def _bound_bytes(self) -> float | None:
        limits = self.run.target.limits
        found = next((limit.bound for limit in limits if limit.metric == "memory.model" and limit.hard), None)
        return found if self.plan.predict and self._networks else None

    @cached_property
    def _networks(self) -> dict[Arch, Kernels]:
        record = self.run.networks() or NetworksRecord(kernels=(), networks=())
        return dict(zip(map(self.plan.space.at, self.features.indices), record.unpacked(), strict=False))

    @cached_property
    def _extra_kernels(self) -> dict[Deployment, Kernels]:
        """Extra kernels in files of each deployment, beside their arch's own: scaling of the input, for example."""
        found: dict[Deployment, Kernels] = {}
        for observation in (
            observation for reference_arch in self.run.reference_archs() for observation in reference_arch.observations
        ):
            if observation.kernels and observation.arch in self._networks and observation.deployment not in found:
                more = Counter(observation.kernels) - Counter(self._networks[observation.arch])
                found[observation.deployment] = tuple(more.elements())
        return found

    def _kernels(self, deployment: Deployment, arch: Arch) -> Kernels:
        return (*self._extra_kernels.get(deployment, ()), *self._networks[arch])


def _alike(kernels: Kernels) -> Kernels:
    """Return the kernels in a canonical order, so that equal networks are one observation."""
    return tuple(sorted(kernels))


def fit_due(observations: Observations, last: PredictorsRecord | None) -> bool:
    """Tell whether some deployment has enough new observations for a fit."""
    before = dict[Deployment, int]()
    if last is not None:
        before = {one.deployment: one.samples for one in last.deployments} or {
            one.deployment: one.fit.samples for one in last.memories
        }
    return any(
        len(found) >= max(_FEWEST, _GROWN * before.get(deployment, 0)) for deployment, found in observations.items()
    )


def with_memory(observations: Observations) -> Observations:
    """Return the observations that include memory."""
    return {
        deployment: [one for one in found if one.memory_bytes is not None] for deployment, found in observations.items()
    }


def fitted_memory(observations: Observations, bound_bytes: float) -> tuple[DeploymentMemory, ...]:
    """Memory fits of every deployment that has enough observations."""
    made = []
    for deployment, found in with_memory(observations).items():
        if len(found) >= _FEWEST:
            fit = fit_memory([one.kernels for one in found], [float(one.memory_bytes or 0) for one in found])
            made.append(DeploymentMemory(deployment=deployment, fit=fit, bound_bytes=bound_bytes, removed=0))
    return tuple(made)


def _memory_bytes(measurement: Measurement | None) -> int | None:
    found_bytes = measurement.memory_bytes if measurement else None
    return None if found_bytes is None else int(found_bytes)


def fitted(observations: Observations, bound_us: float, other_devices: OtherDevices) -> tuple[DeploymentPredictor, ...]:
    """Latency fits of every deployment that has enough observations, the one with most first.

    A deployment with few has a prior: a table of the same deployment from another device, or the first deployment here
    if that has enough, or any table from another device, or else the first deployment.
    """
    order = sorted(
        (deployment for deployment in observations if len(observations[deployment]) >= _FEWEST),
        key=lambda deployment: -len(observations[deployment]),
    )
    records = list[DeploymentPredictor]()
    first: LatencyPredictor | None = None
    for deployment in order:
        few = len(observations[deployment]) < ENOUGH_ALONE
        here = first is not None and len(first.observations) >= ENOUGH_ALONE
        place = other_devices.place(deployment, alike=here) if few else None
        prior = first if few else None
        made = fit_predictor(observations[deployment], prior if place is None else other_devices.predictor(place))
        first = first or made
        assert made.held_out is not None
        records.append(
            DeploymentPredictor(
                deployment=deployment,
                samples=len(observations[deployment]),
                costs=made.costs,
                scales=made.scales,
                widths=made.widths,
                held_out=made.held_out,
                prior=0 if prior is not None and place is None else None,
                prior_table=place,
                bound_us=bound_us,
                removed=0,
            )
        )
    return tuple(records)


def _predictors(
    fits: Sequence[DeploymentPredictor], observations: Observations, other_devices: OtherDevices
) -> list[LatencyPredictor]:
    made = list[LatencyPredictor]()
    for one in fits:
        prior = None if one.prior is None else made[one.prior]
        made.append(
            LatencyPredictor(
                costs=one.costs,
                scales=one.scales,
                observations=tuple(observations[one.deployment]),
                widths=one.widths,
                held_out=one.held_out,
                prior=prior if one.prior_table is None else other_devices.predictor(one.prior_table),
            )
        )
    return made
