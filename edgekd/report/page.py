"""HTML report: one file that needs no network, light and dark, from phone to paper."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from edgekd.evidence import find_figure
from edgekd.report.budgets import budget_bars
from edgekd.report.curves import curves_picture
from edgekd.report.deployments import deployment_rows
from edgekd.report.differentiable import annealing_picture, bound_of, tried_archs
from edgekd.report.facts import Facts, gather
from edgekd.report.front import front_picture, front_points
from edgekd.report.operators import operator_rows
from edgekd.report.quality import processes_picture
from edgekd.store.atomic import write_bytes
from edgekd.units import format_bytes, format_us

__all__ = ["REPORT", "page_environment", "page_text", "stylesheet", "write_report"]

REPORT = "report.html"


def write_report(folder: Path) -> Path:
    """Draw a run folder's page and write it there, atomically. Raises ConfigurationError on a folder that is no run."""
    path = folder / REPORT
    text = page_text(gather(folder))
    write_bytes(path, text.encode())
    return path


def stylesheet() -> str:
    """CSS shared by all pages of edgekd."""
    return (Path(__file__).parent / "templates" / "page.css").read_text()


def page_environment(package: str) -> Environment:
    """Template environment of a package: every name is escaped, and a missing name is an error."""
    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bytes"] = format_bytes
    environment.filters["us"] = format_us
    return environment


def page_text(facts: Facts) -> str:
    """Render the page as HTML. All names are escaped."""
    environment = page_environment("edgekd.report")
    environment.filters["duration"] = _duration
    environment.filters["drawn"] = Markup
    environment.filters["bound"] = bound_of
    chosen = facts.chosen
    judged = chosen or next((finalist for finalist in facts.finalists if finalist.verdict is not None), None)
    certified = facts.certificate.verdict if facts.certificate else (judged.verdict if judged else None)
    measurement = judged.measurement if judged else None
    precisions, rows = deployment_rows(facts.deployments) if facts.deployments else ([], [])
    return environment.get_template("page.html.j2").render(
        facts=facts,
        chosen=chosen,
        judged=judged,
        sentence=_sentence(facts),
        bars=budget_bars(certified.limits) if certified else [],
        front=Markup(front_picture(facts)),
        points=front_points(facts),
        precisions=precisions,
        deployment_rows=rows,
        annealing=Markup(annealing_picture(facts.supernet.points)) if facts.supernet else "",
        tried=tried_archs(facts),
        taught={trial.number: str(trial.candidate.arch) for trial in facts.trials},
        curves=Markup(curves_picture(facts.finalists)),
        latencies={finalist.rank: find_figure(finalist.figures, facts.latency_metric) for finalist in facts.finalists},
        operators=operator_rows(measurement.operators) if measurement else [],
        measurement=measurement,
        processes=Markup(processes_picture(measurement)) if measurement else "",
        outcomes=_outcomes(facts),
        left=_left(facts),
        drawings=[base64.b64encode(picture).decode() for picture in facts.pictures],
    )


def _sentence(facts: Facts) -> str:
    """Verdict as the page's first sentence."""
    if facts.certificate is not None and facts.certificate.certified:
        return f"Certified: {facts.certificate.summary()}"
    if facts.certificate is not None and facts.certificate.lesser is not None:
        return f"{facts.certificate.standing.capitalize()}, not certified: {facts.certificate.summary()}"
    if facts.outcome is not None:
        return facts.outcome.summary
    return f"Not finished: {len(facts.trials)} candidates measured, {len(facts.finalists)} refined"


def _duration(seconds: float) -> str:
    """Format a duration: ``5 min 9 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _left(facts: Facts) -> int:
    """Archs left to propose, after the filters by analysis and those by the files seen."""
    seen = facts.deployments.filters if facts.deployments else ()
    return (facts.filters.left if facts.filters else 0) - sum(report.removed for report in seen)


def _outcomes(facts: Facts) -> Sequence[tuple[str, int]]:
    """Trial outcomes with their counts."""
    return Counter(trial.outcome for trial in facts.trials).most_common()
