"""Text of a profile: one screen, 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgekd.evidence import Figure
from edgekd.units import format_bytes, format_us
from edgekd.wrapping import columns

if TYPE_CHECKING:
    from edgekd.profiling.record import BehaviourProfile, DeploymentProfile, OperatorKind, ProfileReport

__all__ = ["each_words", "heat_words", "profile_lines", "steps_of"]

_STEP = 0.08  # a step of the width sweep: more time than this for one more width, where its neighbours take almost none


def profile_lines(report: ProfileReport) -> list[str]:
    """Whole report as lines."""
    return [line for text in _lines(report) for line in _wrapped(text)]


def steps_of(deployment: DeploymentProfile) -> tuple[int, ...]:
    """Widths after which the next one costs a step of its own, by more than the added work."""
    found = []
    for before, after in zip(deployment.width_sweep, deployment.width_sweep[1:], strict=False):
        grown = after.p5_us.value / before.p5_us.value - 1.0
        usual = (after.width / before.width) ** 2 - 1.0
        if grown > max(_STEP, 1.2 * usual):
            found.append(before.width)
    return tuple(found)


def _lines(report: ProfileReport) -> Iterator[str]:
    found = report.fingerprint
    quick = [
        *(deployment.quick for deployment in report.deployments),
        *(one.quick for one in (report.memory, report.behaviour) if one),
    ]
    kind = " . quick" if quick and all(quick) else ""
    if found.limits:
        kind += f" . emulated: {found.limits}"
    yield f"{report.device} . {found.cpu}, {found.cores} cores . {report.fingerprint.digest()[:12]}{kind}"
    yield ""
    width = max((18, *(len(_on(deployment)) for deployment in report.deployments)))
    yield f" {'backend':<{width}} {'precision':<13} {'peak':>13} {'a call':>9} {'networks':>9}"
    for deployment in report.deployments:
        where = f" {_on(deployment):<{width}} {deployment.precision.value:<13}"
        if deployment.refused:
            yield f"{where} {'-':>13} {'-':>9} {'-':>9}"
            yield f"   {deployment.refused}"
            continue
        peak = f"{deployment.peak.value:.3g} {deployment.peak.unit}" if deployment.peak else "-"
        call = format_us(deployment.overhead.value) if deployment.overhead else "-"
        yield f"{where} {peak:>13} {call:>9} {deployment.timed:>9}"
    yield ""
    for deployment in report.deployments:
        yield from (f"could not be timed on {deployment.label}: {missed}" for missed in deployment.missed)
        if deployment.not_kept:
            yield f"not in the latency table, {deployment.label}: {deployment.not_kept}"
    if report.memory is not None:
        rates = [f"{format_bytes(s.working_bytes)} {s.bandwidth.value / 1e9:.3g} GB/s" for s in report.memory.streams]
        yield f"read and written in: {', '.join(rates) or 'nothing measured'}"
    for deployment in report.deployments:
        steps = steps_of(deployment)
        if steps:
            yield f"steps on {deployment.label} after {', '.join(map(str, steps))} channels"
    for deployment in report.deployments:
        yield from _operators(deployment)
    if report.behaviour is not None:
        yield from _behaviour(report.behaviour)
    if report.reused:
        yield f"known before: {', '.join(report.reused)}"
    few = [one.label for one in report.deployments if one.quick and not one.refused]
    if few:
        yield f"too few networks for `edgekd predict` on {', '.join(few)}: profile without --quick for enough"
    if report.left_out:
        yield (
            f"no time within a minute for {', '.join(report.left_out)}: the same command measures them, "
            "and without --quick however long it takes"
        )
    yield f"report     {report.folder}/report.html"


def _on(deployment: DeploymentProfile) -> str:
    """First column of a deployment."""
    return f"{deployment.backend}, {deployment.threads} threads" if deployment.threads != 1 else str(deployment.backend)


def _operators(deployment: DeploymentProfile) -> Iterator[str]:
    """Line per deployment, each kind by the network in which it takes longest; the page has all of them."""
    longest: dict[str, OperatorKind] = {}
    for one in deployment.operators:
        if one.kind not in longest or one.time_us.value > longest[one.kind].time_us.value:
            longest[one.kind] = one
    parts = [
        f"{one.kind} {one.macs_per_s.value / 1e9:.3g} G multiply-adds/s"
        if one.macs_per_s
        else f"{one.kind} {each_words(one)}"
        for one in longest.values()
    ]
    if parts:
        yield f"operators on {deployment.label}: {', '.join(parts)}"
    if deployment.operators_detail:
        yield f"no operators on {deployment.label}: {deployment.operators_detail}"


def each_words(one: OperatorKind) -> str:
    """Time of one operator of a kind; a profile in whole microseconds shows nothing below one."""
    return format_us(one.time_us.value / one.count) if one.time_us.value else "under 1 us"


def _behaviour(found: BehaviourProfile) -> Iterator[str]:
    if not found.threads:
        yield f"{found.probe} on {found.backend}: could not be timed"
        return
    one = found.threads[0].p5_us.value
    scaled = [f"{each.threads}: {one / each.p5_us.value:.2f}x" for each in found.threads[1:]]
    yield f"{found.probe} on {found.backend}: {format_us(one)} on one thread" + (
        f"; threads {', '.join(scaled)}" if scaled else ""
    )
    if len(found.sustained) > 1:
        lows = [each.p5_us for each in found.sustained]
        third = max(1, len(lows) // 3)
        late, early = sum(lows[-third:]) / third, sum(lows[:third]) / third
        beside = f", {found.busy} other core{'s' * (found.busy > 1)} busy" if found.busy else ""
        yield (
            f"without pause for {found.sustained[-1].at_s:.0f} s{beside}: "
            f"{late / early - 1.0:+.1%} in the last third{heat_words(found)}"
        )
    if found.closed and found.periodic:
        yield (
            f"p50 back to back {_latency(found.closed)}, at {found.rate_hz:g} calls a second {_latency(found.periodic)}"
        )
    yield f"noise between the network and itself {found.noise:.1%}; the machine moved by {found.drift:.1%} meanwhile"


def heat_words(found: BehaviourProfile) -> str:
    """First and last reported temperature and clock: `; 41 to 63 C; 2400 to 1800 MHz`."""
    said = ""
    for unit, parts in (
        ("C", [each.temperature_c for each in found.sustained if each.temperature_c is not None]),
        ("MHz", [each.clock_mhz for each in found.sustained if each.clock_mhz is not None]),
    ):
        if len(parts) > 1:
            said += f"; {parts[0]:.0f} to {parts[-1]:.0f} {unit}"
    return said


def _latency(figure: Figure) -> str:
    return format_us(figure.value)


def _wrapped(line: str) -> list[str]:
    return [line] if len(line) <= columns() else textwrap.wrap(line, columns(), subsequent_indent="  ")
