"""Today's bench against an earlier one: which model got slower, and not because the machine did.

The two were measured at different times, so each is also taken relative to the sentinel of its own batch. A change is
claimed only where both ways show it: beyond the noise of both batches, and never below 2 %, for between two days a
machine moves by more than within a batch. Where they disagree the machine has changed, and nothing is claimed; nor is
anything where a batch had no sentinel or was unstable. Every row is tested at 5 % over their number (Bonferroni): one
of all rows is claimed to be slower in at most 5 of 100 tables in which nothing has changed.
"""

from __future__ import annotations

from collections import Counter
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
_ALPHA = 0.05


class Change(Record):
    """One model on one backend, now over then."""

    model: str
    backend: Backend
    threads: int | None = None  # None where both had one number of threads
    by_the_clock: Comparison
    by_the_sentinel: Comparison | None  # None where a batch had none
    word: Literal["slower", "faster", "alike", "unsure"]
    unsure: str = ""  # why nothing can be said


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
    several = len(set(before.threads)) > 1
    names = [(row.name(several), row.measurement.shapes) for row in before.rows]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise ConfigurationError.one(
            f"has {twice[0]} more than once, so nobody can tell which is which",
            "take it anew: files of one name are told apart by their folders now",
            Place(str(path), field="rows"),
        )


def hold_against(
    rows: Sequence[BenchRow], noise: float, before: BenchReport, path: Path, unstable: bool = False
) -> Against:
    """Compare every row that is in both and has timings in both. ``unstable``: so was the batch just measured."""
    several = len({row.threads for row in [*rows, *before.rows]}) > 1
    then = {(row.name(several), row.measurement.shapes): row for row in before.rows if row.order}
    now = {(row.name(several), row.measurement.shapes): row for row in rows if row.order}
    floor = max(noise, before.quality.noise, _BETWEEN_BATCHES)
    both = [key for key in now if key in then]
    alpha = _ALPHA / max(1, len(both))
    doubt = (
        "the earlier batch was unstable" if before.quality.unstable else "this batch is unstable" if unstable else ""
    )
    return Against(
        previous=path.name,
        changes=tuple(_change(now[key], then[key], floor, alpha, several, doubt) for key in both),
        gone=tuple(name for name, shapes in then if (name, shapes) not in now),
        new=tuple(name for name, shapes in now if (name, shapes) not in then),
    )


def _change(now: BenchRow, then: BenchRow, floor: float, alpha: float, with_threads: bool, doubt: str) -> Change:
    plain = compare(now.measurement, then.measurement, floor, alpha)
    scaled = [_by_sentinel(row.measurement) for row in (now, then)]
    relative = compare(scaled[0], scaled[1], floor, alpha) if scaled[0] and scaled[1] else None
    word, why = _word(plain), ""
    if word != "alike" and relative is None:
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
    """The same with its low quantiles in units of its own batch's sentinel."""
    if measurement.sentinel is None or not measurement.sentinel.low_us:
        return None
    unit_us = float(np.median(measurement.sentinel.low_us))
    return measurement.but(
        processes=tuple(process.but(low_us=process.low_us / unit_us) for process in measurement.processes)
    )
