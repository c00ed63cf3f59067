"""Bench of the same models on several devices, one each: devices don't disturb one another, so not interleaved."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from pydantic import Field

from edgekd.errors import ConfigurationError, MissingError, UsageError
from edgekd.measure.benches.bench import BenchReport
from edgekd.records import Record, Shown

__all__ = ["BenchReports", "NotMeasured", "bench_devices"]

_WORST_FIRST = (4, 3, 1, 6)


class NotMeasured(Record):
    """Device that could not be used."""

    device: str
    message: str
    remedy: str

    def lines(self) -> list[str]:
        """Format message and remedy; several problems are several lines."""
        lines_of = f"{self.device}: not measured: {self.message}".split("\n")
        return [*lines_of, *([f"  {self.remedy}"] if self.remedy else [])]


class BenchReports(Shown):
    """Reports of devices, and the devices without one. A regression on any of them sets the exit code."""

    schema_: Literal["edgekd.benches/1"] = Field(default="edgekd.benches/1", alias="schema")
    reports: tuple[BenchReport, ...]
    missing: tuple[NotMeasured, ...]

    @property
    def exit_code(self) -> int:
        """4 where a device could not be used; otherwise the most severe of the reports'."""
        codes = {report.exit_code for report in self.reports} | ({4} if self.missing else set())
        return next((code for code in _WORST_FIRST if code in codes), 0)

    def lines(self) -> list[str]:
        """Format as text lines, one report after the other."""
        return self._one_after_the_other(BenchReport.lines)

    def markdown_lines(self) -> list[str]:
        """Format as Markdown."""
        return self._one_after_the_other(BenchReport.markdown_lines)

    def detail_lines(self) -> list[str]:
        """Conditions reported by the machines during the bench."""
        return self._one_after_the_other(BenchReport.detail_lines)

    def _one_after_the_other(self, lines_of: Callable[[BenchReport], list[str]]) -> list[str]:
        found = [lines_of(report) for report in self.reports]
        found += [one.lines() for one in self.missing]
        return [line for part in found for line in ("", *part)][1:]


def bench_devices(devices: Iterable[str], bench: Callable[[str], BenchReport]) -> BenchReports:
    """Run ``bench`` on one device after the other. A device that can't be reached, or lacks a runtime or cores, is
    noted.

    Problems of the models themselves, or of options common to all devices, have been found before.
    """
    reports, missing = [], []
    for device in devices:
        try:
            reports.append(bench(device))
        except (ConfigurationError, MissingError, UsageError) as error:
            missing.append(NotMeasured(device=device, message=error.message, remedy=error.remedy))
    return BenchReports(reports=tuple(reports), missing=tuple(missing))
