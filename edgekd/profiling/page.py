"""HTML page of a profile: one file that needs no network."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from edgekd.profiling.pictures import roofline_picture, sustained_picture, width_sweep_picture
from edgekd.profiling.record import ProfileReport
from edgekd.profiling.text import each_words, heat_words, profile_lines
from edgekd.report.page import REPORT, page_environment, stylesheet
from edgekd.store.atomic import write_bytes

__all__ = ["page_text", "write_page"]


def write_page(report: ProfileReport, folder: Path) -> Path:
    """Write the page into the profile's folder, atomically."""
    path = folder / REPORT
    write_bytes(path, page_text(report).encode())
    return path


def page_text(report: ProfileReport) -> str:
    """Render the page as HTML. All names are escaped."""
    timed = [deployment for deployment in report.deployments if not deployment.refused]
    return (
        page_environment("edgekd.profiling")
        .get_template("profile.html.j2")
        .render(
            report=report,
            style=Markup(stylesheet()),
            summary=profile_lines(report),
            roofline=Markup(roofline_picture(timed, report.memory)),
            width_sweep=Markup(width_sweep_picture(timed)),
            each=each_words,
            heat=heat_words(report.behaviour) if report.behaviour else "",
            sustained=Markup(sustained_picture(report.behaviour)) if report.behaviour else "",
        )
    )
