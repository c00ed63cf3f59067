"""Steps before any proposal: static analysis, filters, reference archs, deployments. A finished one is read back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.errors import MissingError
from edgekd.events import Events, stop_if_asked
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.search._protocol import StaticAnalyser
from edgekd.search.budget import Budget
from edgekd.search.deployments.ranking import failures, final_deployments, still_in
from edgekd.search.deployments.reference_archs import choose_reference_archs
from edgekd.search.space.analysis import analyse_space
from edgekd.search.space.feasible import p5_budget_us
from edgekd.search.space.filters import Allowed, Filtered, apply_filters
from edgekd.search.trials.measuring import Bench, observation_of
from edgekd.search.trials.whole_model import first_reference_arch
from edgekd.store.predicted import NetworksRecord
from edgekd.store.records import Deployment, DeploymentsRecord, FeaturesRecord, PlanRecord, ReferenceArchRecord
from edgekd.store.run import Run

__all__ = ["FirstSteps"]

_FEWEST_REFERENCE_ARCHS = 2
_MANY = 10**9
_NARROW = 0.25  # of a budget: a space that ends below it gives accuracy away
_SURVEY_SHARE = 0.1  # of the time: past it no further arch is analysed
_UNLIMITED_S = 3600.0  # assumed time of a run without a limit
_DEPLOYMENTS_SHARE = 0.3  # of the time: past it no further reference arch is begun
# seconds since the run began: past it no other arch than one's own whole model is measured before that is tried
_OWN_S = 120.0


@dataclass(frozen=True)
class FirstSteps:
    """Gathers facts where they are missing; decisions are made again from them each time."""

    run: Run
    plan: PlanRecord
    analyser: StaticAnalyser
    bench: Bench
    budget: Budget
    events: Events

    def features(self, most: int) -> FeaturesRecord:
        """Static features of the space. Raises Interrupted."""
        record = self.run.features()
        if record is None:
            latest_s = self.budget.spent_s() + _SURVEY_SHARE * (self.budget.total_s or _UNLIMITED_S)
            record = analyse_space(
                self.plan.space,
                self.analyser,
                most,
                self.run.header.seed,
                self.events,
                lambda: self.budget.spent_s() > latest_s,
            )
            self.run.write(record)
        if self.plan.predict and self.run.networks() is None:
            space = self.plan.space
            networks = [self.analyser.kernels(space.at(index)) for index in record.indices]
            self.run.write(NetworksRecord.of(networks))
        return record

    def filters(self, features: FeaturesRecord) -> Filtered:
        """Apply the constraint filters, record and report them."""
        filtered = apply_filters(self.run.target, self.plan, features)
        if self.run.filters() is None:
            self.run.write(filtered.record)
        shown = ", ".join(f"{report.name} {report.removed:,} out" for report in filtered.record.filters)
        looked = f"{filtered.record.considered:,} archs"
        if filtered.record.considered < filtered.record.space_size:
            whole = filtered.record.space_size
            looked += f" (sampled from {whole:,})" if whole < _MANY else f" (sampled from {float(whole):.1e})"
        self.events.line(f"filters    {looked} -> {filtered.record.left:,} may fit" + (f" ({shown})" if shown else ""))
        return filtered

    def deployments(self, features: FeaturesRecord, filtered: Filtered) -> tuple[DeploymentsRecord, Allowed]:
        """Measure the missing reference archs, then return the deployments not dominated and the archs allowed on each.

        Raises Interrupted, and MissingError where no deployment can run this family at all.
        """
        target, whole = self.run.target, first_reference_arch(self.run, self.plan)
        archs = choose_reference_archs(self.plan, features, filtered.left, whole)
        reference_archs = list(self.run.reference_archs())
        decided = (
            self.run.deployments() is not None
        )  # then the reference archs that were measured are all there will be
        took_s = 0.0
        for number in range(len(reference_archs), 0 if decided else len(archs)):
            stop_if_asked(self.events)
            if number and self.plan.original is not None and self.budget.spent_s() + took_s > _OWN_S:
                break
            if number >= _FEWEST_REFERENCE_ARCHS and self.budget.spent_s() > _DEPLOYMENTS_SHARE * (
                self.budget.total_s or math.inf
            ):
                break
            alive = still_in(target, self.plan, reference_archs)
            if not alive:
                break
            begun_s = self.budget.spent_s()
            reference_archs.append(self._measure(number, len(archs), archs[number], alive))
            took_s = self.budget.spent_s() - begun_s
            self.run.write(reference_archs[-1])
        record, allowed = final_deployments(target, self.plan, features, filtered, archs, reference_archs)
        if not decided:
            self.run.write(record)
        if not record.kept:
            lines = [f"\n {_listed(deployments)}: {detail}" for detail, deployments in failures(record).items()]
            raise MissingError(
                f"no backend of target {target.name} could run this family:{''.join(lines) or ' none was measured'}",
                "see what this machine has: edgekd doctor",
            )
        kept = ", ".join(str(deployment) for deployment in record.kept)
        measured = len({observation.deployment for observation in record.observations})
        skipped = len(self.plan.deployments) - measured
        ruled_out = f", {skipped} ruled out by their neighbours" if skipped else ""
        on = f"{measured} measured on up to {len(reference_archs)} reference archs{ruled_out}"
        self.events.line(f"deployments       {on} -> {len(record.kept)} kept: {kept}")
        for detail, failed in failures(record).items():
            first, *more = detail.splitlines()
            self.events.line(f"           no {_listed(failed)}: {first}")
            for line in more:
                self.events.line(f"             {line.strip()}")
        self._warn_narrow(features, filtered, record)
        for report in record.filters:
            left = len(set[int]().union(*allowed.values()))
            self.events.line(f"filters    by the files seen: {report.name} {report.removed:,} more out, {left:,} left")
        return record, allowed

    def _warn_narrow(self, features: FeaturesRecord, filtered: Filtered, record: DeploymentsRecord) -> None:
        """Warn of a space whose largest network leaves most of the latency budget unused, and that no other limit cut.

        Latency grows with operations, at most in proportion: the estimate where the largest network is no reference
        arch.
        """
        budget = p5_budget_us(self.run.target, record)
        if budget is None or self.plan.original is not None or filtered.record.left < filtered.record.considered:
            return
        macs = {self.plan.space.at(i): row.macs for i, row in zip(features.indices, features.features, strict=True)}
        largest = max(record.reference_archs, key=lambda arch: macs[arch])
        lows = [
            r.p5_us.value for r in record.observations if r.arch == largest and r.deployment in record.kept and r.p5_us
        ]
        larger = max(macs.values()) / max(1, macs[largest])
        share = larger * max(lows, default=budget[0]) / budget[0]
        if share < _NARROW:
            self.events.line(f"caution    your space ends at {share:.0%} of the latency budget: widen it")

    def _measure(self, number: int, total: int, arch: Arch, deployments: tuple[Deployment, ...]) -> ReferenceArchRecord:
        # float32 stays in the batch as the yardstick of never-slower, even once it is out of the running
        plain = {
            Deployment(backend=deployment.backend, precision=Precision.FLOAT32) for deployment in deployments
        } & set(self.plan.deployments)
        batch = [deployment for deployment in self.plan.deployments if deployment in deployments or deployment in plain]
        candidates = [deployment.candidate(self.run.header.family, arch) for deployment in batch]
        measured, noise = self.bench.measure(
            candidates,
            self.plan.measure.but(profile=number == 0),  # every backend's extreme precisions run on this one
            pair=True,
            progress=lambda what, done, of: self.events.progress("deployments", number, total, f"{what} {done}/{of}"),
            stop=lambda: stop_if_asked(self.events),
        )
        return ReferenceArchRecord(
            number=number,
            arch=arch,
            observations=tuple(
                observation_of(deployment, result) for deployment, result in zip(batch, measured, strict=True)
            ),
            noise=noise,
            ended_s=self.budget.spent_s(),
        )


def _listed(deployments: Sequence[Deployment]) -> str:
    """Format deployments by backend: ``litert/xnnpack int8 and dynamic-int8, onnxruntime/cpu int8``."""
    precisions: dict[str, list[str]] = {}
    for deployment in deployments:
        precisions.setdefault(str(deployment.backend), []).append(deployment.precision.value)
    return ", ".join(f"{backend} {' and '.join(names)}" for backend, names in precisions.items())
