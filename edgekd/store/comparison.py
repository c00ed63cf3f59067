"""Runs side by side: what each one certified, and in which fields of their projects they differ."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from edgekd.errors import UsageError
from edgekd.records import Record, Shown, canonical_json
from edgekd.store.certificate import CERTIFICATE, Certificate
from edgekd.store.listing import run_folders, shortened
from edgekd.store.records import Accuracy
from edgekd.store.run import Run
from edgekd.store.schema import read_record
from edgekd.units import format_s
from edgekd.wrapping import brief_names, columns

__all__ = ["ComparisonAnswer", "ComparisonRow", "compare_runs"]

_METRICS = ("latency.p50", "latency.p95", "size.file")  # shown whether the target limits them or not
_NARROWEST, _LABEL, _GAP = 14, 26, 2
_NONE = "-"


class ComparisonRow(Record):
    """Row of a comparison: a cell for each run, and its numbers where it has any (times in us, sizes in bytes)."""

    what: str
    cells: tuple[str, ...]
    values: tuple[float | None, ...] = ()


class ComparisonAnswer(Shown):
    """Runs side by side. ``settings`` are the fields of projects, versions and devices that differ."""

    schema_: Literal["edgekd.comparison/1"] = Field(default="edgekd.comparison/1", alias="schema")
    runs: tuple[Path, ...]
    results: tuple[ComparisonRow, ...]
    settings: tuple[ComparisonRow, ...]
    notes: tuple[str, ...] = ()
    next: str = ""

    def lines(self) -> list[str]:
        """Format as a table, as wide as the terminal."""
        rows = [*self.results, *self.settings]
        label = min(_LABEL, max(len(row.what) for row in rows))
        width = max(_NARROWEST, (columns() - label) // len(self.runs) - _GAP)
        names = [shortened(run) for run in self.runs]
        brief = brief_names(names, width)
        beside = max(1, (columns() - label) // (width + _GAP))
        lines = []
        for start in range(0, len(names), beside):  # more runs than fit side by side go on below
            part = slice(start, start + beside)
            lines += ["", *_row("", [brief[name] for name in names[part]], label, width)]
            for row in self.results:
                lines += _row(row.what, row.cells[part], label, width)
            lines += ["", "asked for differently:" if self.settings else "the same was asked for"]
            for row in self.settings:
                lines += _row(row.what, row.cells[part], label, width)
        lines = lines[1:]
        lines += ["", *(f"note       {note}" for note in self.notes)] if self.notes else []
        return [*lines, *([f"next:      {self.next}"] if self.next else [])]


def _row(what: str, cells: Sequence[str], label: int, width: int) -> list[str]:
    """Lines of one row; what is too long for its column goes on below."""
    folded = [textwrap.wrap(cell, width) or [""] for cell in cells]
    heads = textwrap.wrap(what, label) or [""]
    height = max(len(heads), *map(len, folded))
    padded = [
        [(part[at] if at < len(part) else "").ljust(size) for at in range(height)]
        for part, size in zip([heads, *folded], [label, *[width] * len(cells)], strict=True)
    ]
    return [(" " * _GAP).join(line).rstrip() for line in zip(*padded, strict=True)]


@dataclass(frozen=True)
class _Compared:
    """Run, and the certificate of its bundle where it has one."""

    run: Run
    certificate: Certificate | None

    @property
    def state(self) -> str:
        outcome = self.run.outcome()
        if self.certificate is not None:
            return self.certificate.standing
        return "not finished" if outcome is None else outcome.summary

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything that was asked for, by its path; versions and the device with it."""
        header = self.run.header
        asked = {**header.project, "command": header.command, "versions": dict(header.versions)}
        asked |= {"target": header.target.model_dump(mode="json"), "device": header.fingerprint.cpu}
        asked |= {"data": header.task.data[:12], "teacher's content": header.teacher_digest[:12]}
        return dict(_flat(asked, ""))


def compare_runs(folders: Sequence[Path]) -> ComparisonAnswer:
    """Compare the runs in these folders, and below them.

    Raises UsageError on fewer than two runs, ConfigurationError on a damaged one.
    """
    below = {folder: sorted(run_folders(folder)) for folder in folders}
    empty = [str(folder) for folder, inside in below.items() if not inside]
    if empty:
        raise UsageError(f"no run in {', '.join(empty)}", "see the runs with: edgekd runs")
    found = list({path.resolve(): path for inside in below.values() for path in inside}.values())
    if len(found) < 2:
        named = ", ".join(map(str, folders))
        raise UsageError(f"fewer than two runs below {named}: nothing to compare", "see the runs with: edgekd runs")
    runs = [_opened(folder) for folder in found]
    settings = [each.settings for each in runs]
    differ = [name for name in dict.fromkeys(key for one in settings for key in one) if _differs(name, settings)]
    certified = [each.certificate for each in runs if each.certificate is not None]
    models = [each.run.folder / "bundle" / each.certificate.model for each in runs if each.certificate is not None]
    return ComparisonAnswer(
        runs=tuple(found),
        results=tuple(_results(runs)),
        settings=tuple(
            ComparisonRow(what=name, cells=tuple(_text(one.get(name)) for one in settings)) for name in differ
        ),
        notes=tuple(_notes(certified)),
        next=f"edgekd bench {' '.join(map(shortened, models))}{_as_timed(certified)}" if len(models) > 1 else "",
    )


def _as_timed(certificates: Sequence[Certificate]) -> str:
    """Options of `edgekd bench` for the device and threads of these certificates, where they are the same."""
    devices, threads = {c.target.device for c in certificates}, {c.target.threads for c in certificates}
    device = f" --device {devices.pop()}" if len(devices) == 1 and devices != {"this-computer"} else ""
    return device + (f" --threads {threads.pop()}" if len(threads) == 1 and threads != {1} else "")


def _opened(folder: Path) -> _Compared:
    path = folder / "bundle" / CERTIFICATE
    return _Compared(Run.open(folder), read_record(path, Certificate) if path.is_file() else None)


def _results(runs: Sequence[_Compared]) -> Iterator[ComparisonRow]:
    def row(what: str, of: Callable[[Certificate], str]) -> ComparisonRow:
        return ComparisonRow(what=what, cells=tuple(of(c.certificate) if c.certificate else _NONE for c in runs))

    yield ComparisonRow(what="state", cells=tuple(each.state for each in runs))
    yield row("student", lambda c: f"{c.candidate.family} {c.candidate.arch}".strip())
    yield row("deployed", lambda c: f"{c.backend} {c.candidate.plan.precision.value}")
    scored = [each.certificate.accuracy if each.certificate else None for each in runs]
    yield ComparisonRow(
        what="accuracy, test",
        cells=tuple(_accuracy(each.certificate) if each.certificate else _NONE for each in runs),
        values=tuple(accuracy.value if accuracy else None for accuracy in scored),
    )
    certificates = [each.certificate for each in runs]
    limited = [limit.metric for each in runs for limit in each.run.header.target.limits]
    for metric in dict.fromkeys((*_METRICS, *limited)):
        figures = [
            next((figure for figure in c.figures if figure.metric == metric), None) if c else None for c in certificates
        ]
        if metric != "accuracy" and any(figures):
            yield ComparisonRow(
                what=metric,
                cells=tuple(str(figure) if figure else _NONE for figure in figures),
                values=tuple(figure.value if figure else None for figure in figures),
            )
    trials = [len(each.run.trials()) for each in runs]
    yield ComparisonRow(what="trials", cells=tuple(map(str, trials)), values=tuple(map(float, trials)))
    outcomes = [each.run.outcome() for each in runs]
    yield ComparisonRow(
        what="time",
        cells=tuple(format_s(outcome.seconds) if outcome else _NONE for outcome in outcomes),
        values=tuple(outcome.seconds if outcome else None for outcome in outcomes),
    )


def _accuracy(certificate: Certificate) -> str:
    """Accuracy with Wilson's interval at 95 % (Wilson, 1927), where it is a share of right answers."""
    scored = certificate.accuracy
    if certificate.task.metric.name != "top1":
        return f"{scored.value:.2%}"
    low, high = _interval(scored)
    return f"{scored.value:.2%} [{low:.1%}, {high:.1%}]"


def _interval(scored: Accuracy) -> tuple[float, float]:
    from scipy.stats import binomtest

    interval = binomtest(round(scored.value * scored.samples), scored.samples).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _notes(certificates: Sequence[Certificate]) -> Iterator[str]:
    """What keeps figures of different runs from being compared."""
    if len(certificates) < 2:
        return
    if len({c.task.data for c in certificates}) > 1:
        yield "scored on different data: their accuracies don't compare"
    first, *others = [c.fingerprint for c in certificates]
    changed = list(dict.fromkeys(name for other in others for name in first.changed(other)))
    if changed:
        yield f"measured on different devices ({', '.join(changed)}): their times don't compare"
    else:
        yield "timed in different sessions: bench measures the files side by side, and tells whether they differ"


def _flat(value: Any, at: str) -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings and lists, by their path."""
    if isinstance(value, Mapping) and value:
        for key, inside in value.items():
            yield from _flat(inside, f"{at}.{key}" if at else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(inside, Mapping) for inside in value):
        for index, inside in enumerate(value):
            yield from _flat(inside, f"{at}[{index}]")
    else:
        yield at, value


def _differs(name: str, settings: Sequence[Mapping[str, Any]]) -> bool:
    return len({canonical_json(one.get(name)) for one in settings}) > 1


def _text(value: Any) -> str:
    return _NONE if value is None else value if isinstance(value, str) else canonical_json(value)
