"""Today's bench against an earlier one: which model got slower, and not because the machine did.

The two were measured at different times, so each is also taken relative to the sentinel of its own batch. A change is
claimed only where both ways show it: beyond the noise of both batches, and never below 2 %, for between two days a
machine moves by more than within a batch. Where they disagree the machine has changed, and nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import ValidationError

from edgekd.artefacts import Backend
from edgekd.devices._protocol import Fingerprint, Load, Measurement
from edgekd.errors import ConfigurationError, Place
from edgekd.measure.compare import Comparison, compare
from edgekd.records import Record

if TYPE_CHECKING:
    from edgekd.measure.bench import BenchReport, BenchRow

__all__ = ["Against", "Change", "hold_against", "read_report", "require_like"]

_BETWEEN_BATCHES = 0.02


class Change(Record):
    """One model on one backend, now over then."""

    model: str
    backend: Backend
    threads: int | None = None  # None where both had one number of threads
    by_the_clock: Comparison
    by_the_sentinel: Comparison | None  # None where a batch had none
    word: Literal["slower", "faster", "alike", "unsure"]


class Against(Record):
    """Everything that is in both; ``gone`` is in the earlier one alone, ``new`` in this one alone."""

    previous: str
    changes: tuple[Change, ...]
    gone: tuple[str, ...]
    new: tuple[str, ...]

    @property
    def slower(self) -> bool:
        """Whether anything is slower than it was, really."""
        return any(change.word == "slower" for change in self.changes)


def read_report(path: Path) -> BenchReport:
    """A report as `edgekd bench --format json` writes it. Raises ConfigurationError."""
    from edgekd.measure.bench import BenchReport

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
    """Raises ConfigurationError where the earlier report can't be compared with what is about to be measured."""
    if before.fingerprint.digest() != fingerprint.digest():
        left_out = {"meter", "no_meter", "power_is_modelled"}
        then, now = (found.model_dump(mode="json", exclude=left_out) for found in (before.fingerprint, fingerprint))
        differ = [name for name in {**then, **now} if then.get(name) != now.get(name)]
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


def hold_against(rows: Sequence[BenchRow], noise: float, before: BenchReport, path: Path) -> Against:
    """Compare every row that is in both and has timings in both."""
    several = len({row.threads for row in [*rows, *before.rows]}) > 1
    then = {(row.name(several), row.measurement.shapes): row for row in before.rows if row.order}
    now = {(row.name(several), row.measurement.shapes): row for row in rows if row.order}
    floor = max(noise, before.quality.noise, _BETWEEN_BATCHES)
    return Against(
        previous=path.name,
        changes=tuple(_change(now[key], then[key], floor, several) for key in now if key in then),
        gone=tuple(name for name, shapes in then if (name, shapes) not in now),
        new=tuple(name for name, shapes in now if (name, shapes) not in then),
    )


def _change(now: BenchRow, then: BenchRow, floor: float, with_threads: bool) -> Change:
    plain = compare(now.measurement, then.measurement, floor)
    scaled = [_by_sentinel(row.measurement) for row in (now, then)]
    relative = compare(scaled[0], scaled[1], floor) if scaled[0] and scaled[1] else None
    told = [_word(each) for each in (plain, relative) if each is not None]
    word = told[0] if len(set(told)) == 1 else "unsure"
    return Change(
        model=now.model,
        backend=now.backend,
        threads=now.threads if with_threads else None,
        by_the_clock=plain,
        by_the_sentinel=relative,
        word=word,
    )


def _word(comparison: Comparison) -> Literal["slower", "faster", "alike"]:
    if not comparison.distinguishable:
        return "alike"
    return "slower" if comparison.ratio > 1 else "faster"


def _by_sentinel(measurement: Measurement) -> Measurement | None:
    """The same with its low quantiles in units of its own batch's sentinel."""
    if measurement.sentinel is None or not measurement.sentinel.low_us:
        return None
    unit_us = float(np.median(measurement.sentinel.low_us))
    return measurement.but(
        processes=tuple(process.but(low_us=process.low_us / unit_us) for process in measurement.processes)
    )
