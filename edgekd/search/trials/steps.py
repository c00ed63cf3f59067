"""The steps before any proposal: survey, masks, anchors, arms. Each is read back where it was finished before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.errors import MissingError
from edgekd.events import Events, stop_if_asked
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate, CompressionPlan
from edgekd.ir.space import Arch
from edgekd.search._protocol import Surveyor
from edgekd.search.budget import Budget
from edgekd.search.deployments.anchors import choose_anchors
from edgekd.search.deployments.arms import failures, settle_arms, still_in
from edgekd.search.space.feasible import low_budget_us
from edgekd.search.space.masks import Allowed, Masked, mask
from edgekd.search.space.survey import survey
from edgekd.search.trials.measuring import Bench, reading_of
from edgekd.store.predicted import NetworksRecord
from edgekd.store.records import AnchorRecord, Arm, ArmsRecord, FeaturesRecord, PlanRecord
from edgekd.store.run import Run

__all__ = ["FirstSteps"]

_FEWEST_ANCHORS = 2
_MANY = 10**9
_NARROW = 0.25  # of a budget: a space that ends below it gives accuracy away
_SURVEY_SHARE = 0.1  # of the budget: past it no further arch is looked at
_UNLIMITED_S = 3600.0  # what a run without a budget counts as here
_ARMS_SHARE = 0.3  # of the budget: past it no further anchor is begun
_OWN_S = 120.0  # since the run began: one's own model is tried soon after, on every arm, and tells more than an anchor


@dataclass(frozen=True)
class FirstSteps:
    """Facts are gathered where they are missing; decisions are made again from them each time."""

    run: Run
    plan: PlanRecord
    surveyor: Surveyor
    bench: Bench
    budget: Budget
    events: Events

    def features(self, most: int) -> FeaturesRecord:
        """Static features of the space. Raises Interrupted."""
        record = self.run.features()
        if record is None:
            latest_s = self.budget.spent_s() + _SURVEY_SHARE * (self.budget.total_s or _UNLIMITED_S)
            record = survey(
                self.plan.space,
                self.surveyor,
                most,
                self.run.header.seed,
                self.events,
                lambda: self.budget.spent_s() > latest_s,
            )
            self.run.write(record)
        if self.plan.predict and self.run.networks() is None:
            space = self.plan.space
            networks = [self.surveyor.kernels(space.at(index)) for index in record.indices]
            self.run.write(NetworksRecord.of(networks))
        return record

    def masks(self, features: FeaturesRecord) -> Masked:
        """What the masks leave."""
        masked = mask(self.run.target, self.plan, features)
        if self.run.masks() is None:
            self.run.write(masked.record)
        shown = ", ".join(f"{report.name} {report.removed:,} out" for report in masked.record.masks)
        looked = f"{masked.record.considered:,} archs"
        if masked.record.considered < masked.record.space_size:
            whole = masked.record.space_size
            looked += f" (sampled from {whole:,})" if whole < _MANY else f" (sampled from {float(whole):.1e})"
        self.events.line(f"masks      {looked} -> {masked.record.left:,} may fit" + (f" ({shown})" if shown else ""))
        return masked

    def arms(self, features: FeaturesRecord, masked: Masked) -> tuple[ArmsRecord, Allowed]:
        """Measure the anchors that aren't measured yet, then keep what isn't dominated, and what may fit on it.

        Raises Interrupted, and MissingError where no arm can run this family at all.
        """
        target, archs = self.run.target, choose_anchors(self.plan, features, masked.left)
        anchors = list(self.run.anchors())
        decided = self.run.arms() is not None  # then the anchors that were measured are all there will be
        took_s = 0.0
        for number in range(len(anchors), 0 if decided else len(archs)):
            stop_if_asked(self.events)
            if number and self.plan.original is not None and self.budget.spent_s() + took_s > _OWN_S:
                break
            if number >= _FEWEST_ANCHORS and self.budget.spent_s() > _ARMS_SHARE * (self.budget.total_s or math.inf):
                break
            alive = still_in(target, self.plan, anchors)
            if not alive:
                break
            begun_s = self.budget.spent_s()
            anchors.append(self._measure(number, len(archs), archs[number], alive))
            took_s = self.budget.spent_s() - begun_s
            self.run.write(anchors[-1])
        record, allowed = settle_arms(target, self.plan, features, masked, archs, anchors)
        if not decided:
            self.run.write(record)
        if not record.kept:
            lines = [f"\n {_listed(arms)}: {detail}" for detail, arms in failures(record).items()]
            raise MissingError(
                f"no backend of target {target.name} could run this family:{''.join(lines) or ' none was measured'}",
                "see what this machine has: edgekd doctor",
            )
        kept = ", ".join(str(arm) for arm in record.kept)
        measured = len({reading.arm for reading in record.readings})
        skipped = len(self.plan.arms) - measured
        ruled_out = f", {skipped} ruled out by their neighbours" if skipped else ""
        on = f"{measured} measured on up to {len(anchors)} anchors{ruled_out}"
        self.events.line(f"arms       {on} -> {len(record.kept)} kept: {kept}")
        for detail, failed in failures(record).items():
            first, *more = detail.splitlines()
            self.events.line(f"           no {_listed(failed)}: {first}")
            for line in more:
                self.events.line(f"             {line.strip()}")
        self._tell_narrow(features, masked, record)
        for report in record.masks:
            left = len(set[int]().union(*allowed.values()))
            self.events.line(f"masks      by the files seen: {report.name} {report.removed:,} more out, {left:,} left")
        return record, allowed

    def _tell_narrow(self, features: FeaturesRecord, masked: Masked, record: ArmsRecord) -> None:
        """A space whose largest network leaves most of the latency budget unused, and that no other limit cut.

        Latency grows with operations, at most in proportion: the estimate where the largest network is no anchor.
        """
        budget = low_budget_us(self.run.target, record)
        if budget is None or self.plan.original is not None or masked.record.left < masked.record.considered:
            return
        macs = {self.plan.space.at(i): row.macs for i, row in zip(features.indices, features.features, strict=True)}
        largest = max(record.anchors, key=lambda arch: macs[arch])
        lows = [r.low_us.value for r in record.readings if r.arch == largest and r.arm in record.kept and r.low_us]
        larger = max(macs.values()) / max(1, macs[largest])
        share = larger * max(lows, default=budget[0]) / budget[0]
        if share < _NARROW:
            self.events.line(f"caution    your space ends at {share:.0%} of the latency budget: widen it")

    def _measure(self, number: int, total: int, arch: Arch, arms: tuple[Arm, ...]) -> AnchorRecord:
        # float32 stays in the batch as the yardstick of never-slower, even once it is out of the running
        plain = {Arm(backend=arm.backend, precision=Precision.FLOAT32) for arm in arms} & set(self.plan.arms)
        batch = [arm for arm in self.plan.arms if arm in arms or arm in plain]
        candidates = [
            Candidate(
                family=self.run.header.family,
                arch=arch,
                plan=CompressionPlan(precision=arm.precision),
                backend=arm.backend,
            )
            for arm in batch
        ]
        measured, noise = self.bench.measure(
            candidates,
            self.plan.measure.but(profile=number == 0),  # the anchor on which both ends of every ladder run
            pair=True,
            progress=lambda what, done, of: self.events.progress("arms", number, total, f"{what} {done}/{of}"),
            stop=lambda: stop_if_asked(self.events),
        )
        return AnchorRecord(
            number=number,
            arch=arch,
            readings=tuple(reading_of(arm, result) for arm, result in zip(batch, measured, strict=True)),
            noise=noise,
            ended_s=self.budget.spent_s(),
        )


def _listed(arms: Sequence[Arm]) -> str:
    """``litert/xnnpack int8 and dynamic-int8, onnxruntime/cpu int8``."""
    precisions: dict[str, list[str]] = {}
    for arm in arms:
        precisions.setdefault(str(arm.backend), []).append(arm.precision.value)
    return ", ".join(f"{backend} {' and '.join(names)}" for backend, names in precisions.items())
