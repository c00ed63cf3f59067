"""Regression check: today's bench against an earlier one, with changes of the machine separated from those of models.

The two were measured at different times, so each is also taken relative to the sentinel of its own batch. A change is
claimed only where both ways show it: beyond the noise of both batches, and never below 2 %, for between two days a
machine moves by more than within a batch. Where they disagree the machine has changed, and nothing is claimed; nor is
anything where a batch had no sentinel or was unstable. Every row is tested at 5 % over their number (Bonferroni): any
row is wrongly claimed to be slower in at most 5 of 100 tables in which nothing has changed.

A model is matched with its earlier row by name: the end of its path, with as many folders as that report needed. Where
a name fits several files now, or no model is in both, that is an error before anything is measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import ValidationError

from edgekd.artefacts import Backend
from edgekd.devices._protocol import Fingerprint, Job, Load, Measurement, Outcome
from edgekd.errors import ConfigurationError, Place
from edgekd.measure.compare import Comparison, compare
from edgekd.records import Record

if TYPE_CHECKING:
    from edgekd.measure.benches.bench import BenchReport, BenchRow

__all__ = ["Against", "Change", "hold_against", "match", "read_report", "require_like"]

_BETWEEN_BATCHES = 0.02
_ALPHA = 0.05
_SHOWN = 3  # names in a message


class Change(Record):
    """Change of one model on one backend: ratio of now to then."""

    model: str
    backend: Backend
    threads: int | None = None  # None where both reports had one number of threads
    by_the_clock: Comparison
    by_the_sentinel: Comparison | None  # None where a batch had none
    word: Literal["slower", "faster", "alike", "unsure"]
    unsure: str = ""  # reason why no change can be claimed


class Against(Record):
    """Comparison of two reports; ``gone`` has times in the earlier one only, ``new`` in this one only.

    ``broken`` ran then, was tried now, and failed.
    """

    previous: str
    changes: tuple[Change, ...]
    gone: tuple[str, ...]
    new: tuple[str, ...]
    broken: tuple[str, ...] = ()

    @property
    def worse(self) -> bool:
        """True if any model is really slower than it was, or no longer runs."""
        return bool(self.broken) or any(change.word == "slower" for change in self.changes)


def read_report(path: Path) -> BenchReport:
    """Read a report written by `edgekd bench --format json`. Raises ConfigurationError."""
    from edgekd.measure.benches.bench import BenchReport

    try:
        return BenchReport.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError.one(
            f"can't be read: {error.strerror}", "expected what `edgekd bench --format json` wrote", Place(str(path))
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise ConfigurationError.one(
            f"is no report of a bench: {first['msg']}",
            "expected what `edgekd bench --format json` wrote",
            Place(str(path), field=field),
        ) from None


def require_like(before: BenchReport, fingerprint: Fingerprint, threads: Sequence[int], load: Load, path: Path) -> None:
    """Check that the earlier report is comparable with the coming measurement. Raises ConfigurationError."""
    measured = {row.backend for row in before.rows}
    still = [backend for backend in measured if backend.provider in fingerprint.providers.get(backend.runtime, ())]
    if differ := before.fingerprint.changed(fingerprint, *still):
        raise ConfigurationError.one(
            f"was taken on another machine or with other runtimes: {', '.join(differ)} differ",
            "compare on the same device, with the same runtimes",
            Place(str(path), field=f"fingerprint.{differ[0]}"),
        )
    if before.plan.load != load or not set(before.threads) & set(threads):
        raise ConfigurationError.one(
            f"was taken with {', '.join(map(str, before.threads))} threads, {before.plan.load}",
            "give the same --threads, --rate and --busy",
            Place(str(path), field="plan"),
        )
    several = len(set(before.threads)) > 1
    names = [(row.name(several), row.measurement.shapes) for row in before.rows]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise ConfigurationError.one(
            f"has {twice[0]} more than once, so the rows can't be matched",
            "measure it again: files of one name are now distinguished by their folders",
            Place(str(path), field="rows"),
        )


def match(jobs: Sequence[Job], before: BenchReport, path: Path) -> tuple[BenchRow | None, ...]:
    """Earlier row with times of each job, by the end of its file's path; None where there is none.

    Raises ConfigurationError where an earlier name fits several files, or where there is nothing to compare.
    """
    timed = [row for row in before.rows if row.order]
    files = list(dict.fromkeys(job.artefact.path.absolute() for job in jobs))
    fitting = {row.model: [file for file in files if _ends(file, row.model)] for row in timed}
    for name, found in fitting.items():
        if len(found) > 1:
            raise ConfigurationError.one(
                f"has one {name}, which may be any of {_few(map(str, found))}",
                "give the one that it was, or take the report anew with all of them: folders are in its names then",
                Place(str(path), field="rows"),
            )
    then = {(file, *_ran_as(row)): row for row in timed for file in fitting[row.model]}
    rows = tuple(then.get((job.artefact.path.absolute(), job.backend, job.threads, job.shapes)) for job in jobs)
    if all(row is None for row in rows):
        raise ConfigurationError.one(
            f"holds nothing to compare with: it has times of {_few(row.name(True) for row in timed) or 'nothing'}",
            "give the same models, --backend, --threads and --shape, or take it anew",
            Place(str(path), field="rows"),
        )
    return rows


def hold_against(
    rows: Sequence[BenchRow],
    matched: Sequence[BenchRow | None],
    noise: float,
    before: BenchReport,
    path: Path,
    unstable: bool = False,
) -> Against:
    """Compare every row with its earlier one (`match`). ``unstable``: the batch just measured is unstable."""
    several = len({row.threads for row in [*rows, *before.rows]}) > 1
    pairs = list(zip(rows, matched, strict=True))
    both = [(now, then) for now, then in pairs if now.order and then is not None]
    floor = max(noise, before.quality.noise, _BETWEEN_BATCHES)
    alpha = _ALPHA / max(1, len(both))
    doubt = (
        "the earlier batch was unstable" if before.quality.unstable else "this batch is unstable" if unstable else ""
    )
    failed = [(now, then) for now, then in pairs if now.outcome is not Outcome.OK and then is not None]
    known = {_as(then) for _, then in (*both, *failed)}
    return Against(
        previous=path.name,
        changes=tuple(_change(now, then, floor, alpha, several, doubt) for now, then in both),
        gone=tuple(row.name(several) for row in before.rows if row.order and _as(row) not in known),
        new=tuple(now.name(several) for now, then in pairs if now.order and then is None),
        broken=tuple(f"{now.name(several)} ({now.outcome.value})" for now, _ in failed),
    )


def _as(row: BenchRow) -> tuple[object, ...]:
    return (row.model, *_ran_as(row))


def _ran_as(row: BenchRow) -> tuple[object, ...]:
    return row.backend, row.threads, row.measurement.shapes


def _ends(file: Path, name: str) -> bool:
    """Tell whether the file's path ends with that name, folder by folder."""
    parts = Path(name).parts
    return file.parts[-len(parts) :] == parts


def _few(names: Iterable[str]) -> str:
    first = list(names)
    more = f" and {len(first) - _SHOWN} more" if len(first) > _SHOWN else ""
    return ", ".join(first[:_SHOWN]) + more


def _change(now: BenchRow, then: BenchRow, floor: float, alpha: float, with_threads: bool, doubt: str) -> Change:
    plain = compare(now.measurement, then.measurement, floor, alpha)
    scaled = [_by_sentinel(row.measurement) for row in (now, then)]
    relative = compare(scaled[0], scaled[1], floor, alpha) if scaled[0] and scaled[1] else None
    word, why = _word(plain), ""
    if word != "alike" and relative is None and now.measurement.simulated is None:
        why = "without a sentinel, nobody can tell the model from the machine"
    elif relative is not None and word != _word(relative):
        why = f"by the sentinel it takes {relative.ratio:.2f} of its time: the machine has changed"
    elif word != "alike":
        why = doubt
    return Change(
        model=now.model,
        backend=now.backend,
        threads=now.threads if with_threads else None,
        by_the_clock=plain,
        by_the_sentinel=relative,
        word="unsure" if why else word,
        unsure=why,
    )


def _word(comparison: Comparison) -> Literal["slower", "faster", "alike"]:
    if not comparison.distinguishable:
        return "alike"
    return "slower" if comparison.ratio > 1 else "faster"


def _by_sentinel(measurement: Measurement) -> Measurement | None:
    """Measurement with its 5th percentiles in units of its own batch's sentinel."""
    if measurement.sentinel is None or not measurement.sentinel.p5_us:
        return None
    unit_us = float(np.median(measurement.sentinel.p5_us))
    return measurement.but(
        processes=tuple(process.but(p5_us=process.p5_us / unit_us) for process in measurement.processes)
    )
