"""Outcome of a run: outcome.json, with summary and exit code."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from edgekd.errors import MissingError, NothingFits, Unstable
from edgekd.evidence import find_figure
from edgekd.search.budget import Budget
from edgekd.search.finalists.selection import is_simulated
from edgekd.search.outcome.nearest import (
    floor_line,
    nearest_finalists,
    nearest_shortlisted,
    nearest_trials,
    nothing_left,
)
from edgekd.search.trials.files import keep_only
from edgekd.store.listing import shortened
from edgekd.store.records import FinalistRecord, OutcomeRecord
from edgekd.store.run import Run
from edgekd.targets.verdict import Answer
from edgekd.units import format_bytes

__all__ = ["finish", "nothing_fits", "outcome_of_best"]


def outcome_of_best(run: Run, winner: FinalistRecord) -> OutcomeRecord:
    """Outcome for the best finalist: chosen, or refused a certificate where its figures are simulated."""
    return _refused(run, winner) if is_simulated(winner) else _success(winner)


def _refused(run: Run, winner: FinalistRecord) -> OutcomeRecord:
    """Outcome with a simulator's estimates: the best finalist, its file, and how to certify it."""
    device = run.target.device
    lines = [f"best by {_by_simulator(winner)}: {_success(winner).summary}"]
    if winner.accuracy is not None:
        lines.append(f"its accuracy is of the student, not of its file: {winner.accuracy.method}")
    if winner.artefact is not None:
        lines.append(f"its file: {shortened(run.resolve(winner.artefact).path)}")
    lines.append(
        f"to certify it: name a device that runs models in the target, in the place of {device}, and run again"
    )
    return OutcomeRecord(
        exit_code=MissingError.exit_code,
        summary=f"not certified: every figure of {device} is simulated, and a certificate needs measured ones",
        chosen=None,
        seconds=0.0,
        detail=tuple(lines),
    )


def _by_simulator(finalist: FinalistRecord) -> str:
    return f"{finalist.seen.simulated}'s estimates" if finalist.seen is not None else "estimates"


def _success(winner: FinalistRecord) -> OutcomeRecord:
    """Outcome for a chosen finalist."""
    parts = [str(winner.candidate)]
    if winner.accuracy is not None:
        parts.append(f"{100 * winner.accuracy.value:.1f} % {winner.accuracy.split}")
    p95, size = find_figure(winner.figures, "latency.p95"), find_figure(winner.figures, "size.file")
    if p95 is not None:
        parts.append(f"p95 {p95}")
    if size is not None:
        parts.append(format_bytes(size.value))
    return OutcomeRecord(exit_code=0, summary=" . ".join(parts), chosen=winner.rank, seconds=0.0)


def nothing_fits(run: Run, tails: Mapping[str, float] = {}, removed: Mapping[str, int] | None = None) -> OutcomeRecord:
    """Outcome where no finalist holds every limit: exit code 6 where some verdict is undecided, else 5."""
    target, finalists, shortlist = run.target, run.finalists(), run.shortlist()
    if removed is not None:
        detail = nothing_left(target, removed)
    elif finalists:
        detail = nearest_finalists(finalists)
        if run.trials() and any(_is_too_slow(finalist) for finalist in finalists):
            detail = (*detail, floor_line(tails, run.trials(), run.reference_archs()))
        proposed = run.proposals()
        if proposed is not None and proposed.share < 1.0:
            cut = f"training was cut to {proposed.share:.0%} of the recipe's epochs for want of time"
            detail = (*detail, f"{cut}: search again with a larger --budget, in another --run")
        elif any(finalist.ended_early for finalist in finalists):
            cut = "training ended early for want of time"
            detail = (*detail, f"{cut}: search again with a larger --budget, in another --run")
    elif shortlist is not None and shortlist.seen:
        nearest = nearest_shortlisted(target, shortlist, run.trials())
        detail = (*nearest, floor_line(tails, run.trials(), run.reference_archs()))
    else:
        detail = (*nearest_trials(target, tails, run.trials()), floor_line(tails, run.trials(), run.reference_archs()))
    unstable = any(f.verdict is not None and f.verdict.answer is Answer.UNSTABLE for f in finalists)
    if unstable:
        summary = f"measured, but too noisy to tell whether {target.name} is met"
        detail = (*detail, "to measure the finalists again, trained as they are: give the same command")
        return OutcomeRecord(exit_code=Unstable.exit_code, summary=summary, chosen=None, seconds=0.0, detail=detail)
    summary = f"no candidate meets {target.name}"
    return OutcomeRecord(exit_code=NothingFits.exit_code, summary=summary, chosen=None, seconds=0.0, detail=detail)


def _is_too_slow(finalist: FinalistRecord) -> bool:
    limits = finalist.verdict.limits if finalist.verdict else ()
    return any(one.limit.metric.startswith("latency.") and one.answer is not Answer.HOLDS for one in limits)


def finish(run: Run, outcome: OutcomeRecord, budget: Budget) -> OutcomeRecord:
    """Write the outcome, and delete files that no record refers to."""
    done = outcome.but(seconds=budget.spent_s())
    run.write(done)
    shutil.rmtree(run.scratch / "refined", ignore_errors=True)
    keep_only(run.artefacts, {finalist.artefact.sha256 for finalist in run.finalists() if finalist.artefact})
    return done
