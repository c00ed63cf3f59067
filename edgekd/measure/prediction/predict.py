"""Latency prediction of models never measured on a device, from its tables: one row a model and backend."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pydantic import Field

from edgekd.artefacts import Backend
from edgekd.devices._protocol import Fingerprint
from edgekd.errors import MissingError
from edgekd.evidence import EvidenceKind, Figure
from edgekd.ir.kernels import Kernels, counted_macs
from edgekd.ir.numerics import Precision
from edgekd.measure.memory import fit_memory, predict_memory
from edgekd.measure.prediction.predictor import ENOUGH_ALONE, LatencyPredictor, fit_predictor, fit_prior
from edgekd.measure.prediction.priors import choose_prior, observations_of, prior_words
from edgekd.measure.tables import LatencyTable, profile_command
from edgekd.records import Record, Shown
from edgekd.store.predicted import HeldOut
from edgekd.wrapping import brief_names, columns

__all__ = ["ModelOnBackend", "PredictReport", "PredictRow", "Unfit", "predict_models"]

_FEWEST = 8  # rows, below which an interval is meaningless
_CONFIDENCE = 0.9
_SORTS = {
    "conv": "convolutions over a window",
    "conv strided": "convolutions with a stride",
    "conv1x1": "1 x 1 convolutions",
    "depthwise": "depthwise convolutions",
    "dense": "dense layers",
    "add": "additions",
    "pool": "pooling",
    "move": "padding, slicing or joining of tensors",
    "image": "scaling or layout of an image",
    "other": "element-wise functions",
}


@dataclass(frozen=True)
class ModelOnBackend:
    """Model on a backend."""

    model: str
    backend: Backend
    precision: Precision
    kernels: Kernels


class PredictRow(Record):
    """Prediction of one model on one backend. ``figures`` are empty where no table suffices: ``detail`` says why."""

    model: str
    backend: Backend
    precision: Precision
    macs: int
    figures: tuple[Figure, ...]
    held_out: HeldOut | None
    unlike: float | None  # share of its expected time in kernels unlike any measured one
    unseen: tuple[str, ...] = ()  # sorts of its kernels that no measured network has: a figure would be worthless
    prior: str = ""  # the prior table, where few networks were measured here
    detail: str = ""
    remedy: str = ""  # the command that measures enough, where nothing is predicted


class Unfit(Record):
    """Model that can't be predicted from any measurements."""

    model: str
    message: str
    remedy: str


class PredictReport(Shown):
    """Predicted figures, and the errors of such predictions so far. Evidence kind: predicted."""

    schema_: Literal["edgekd.predict/1"] = Field(default="edgekd.predict/1", alias="schema")
    device: str
    fingerprint: Fingerprint
    threads: int
    rows: tuple[PredictRow, ...]
    unfit: tuple[Unfit, ...] = ()
    note: str = ""

    @property
    def exit_code(self) -> int:
        """0, or 3 where a file is unfit."""
        return 3 if self.unfit else 0

    def lines(self) -> list[str]:
        """Format a table as wide as the terminal, then its reliability."""
        return list(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.device} . {self.fingerprint.cpu} . {self.threads} thread{'s' if self.threads != 1 else ''}"
        yield ""
        width = max(len(row.model) for row in self.rows)
        width = min(width, 28 + columns() - 80)
        names = brief_names([row.model for row in self.rows], width)
        yield f" {'model':<{width}} {'backend':<21} {'predicted':>9}  90 % interval"
        for row in self.rows:
            name = names[row.model]
            where = f"{row.backend} {row.precision.value}"[:30]
            low = next((figure for figure in row.figures if figure.metric == "latency.p5"), None)
            if low is None:
                yield f" {name:<{width}} {where:<21} {'-':>9}"
                continue
            text = str(low).removesuffix(f" ({low.kind.value})")
            middle, _, interval = text.partition(" [")
            yield f" {name:<{width}} {where:<21} {middle:>9}  [{interval}"
        yield ""
        for row in self.rows:
            yield from textwrap.wrap(self._words(row), columns(), subsequent_indent="  ")
        for one in self.unfit:
            said = f"{one.model}: not predicted: {one.message}; {one.remedy}"
            yield from textwrap.wrap(said, columns(), subsequent_indent="  ")
        if self.note:
            yield from textwrap.wrap(f"note: {self.note}", columns(), subsequent_indent="  ")
        yield "predicted, not measured; measure with: edgekd bench"

    def _words(self, row: PredictRow) -> str:
        if row.held_out is None:
            return f"{row.model} on {row.backend}: {row.detail}; run: {row.remedy}"
        error = row.held_out
        said = (
            f"{row.model} on {row.backend}: of {error.samples} networks measured here, a tenth left out at a time, "
            f"half were off by {error.median:.1%} at most, 95 of 100 by {error.p95:.1%}"
        )
        if row.prior:
            said += f"; so few start from {row.prior}"
        memory = next((figure for figure in row.figures if figure.metric == "memory.model"), None)
        if memory is not None:
            said += f"; adds {memory} to memory"
        if row.unlike is not None and row.unlike > 0.1:
            said += f". {row.unlike:.0%} of its time is in kernels unlike any that was measured: trust the interval"
        return said


def _listed(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


class _Fitted(NamedTuple):
    predictor: LatencyPredictor
    prior: str  # in words


def predict_models(
    device: str,
    fingerprint: Fingerprint,
    threads: int,
    tables: Sequence[LatencyTable],
    asked: Sequence[ModelOnBackend],
    other_devices: Sequence[LatencyTable] = (),
) -> PredictReport:
    """Predict all from the tables that hold for the device; tables of ``elsewhere`` are priors at most.

    Raises MissingError where no table suffices for any.
    """
    fitted: dict[tuple[Backend, Precision], _Fitted | str] = {}
    rows = []
    for one in asked:
        key = one.backend, one.precision
        if key not in fitted:
            prior = choose_prior(*key, device, fingerprint, (*tables, *other_devices))
            fitted[key] = _fitted(device, fingerprint, _table(tables, one), one, prior)
        row = _row(fingerprint, tables, one, fitted[key])
        if row.unseen:
            row = row.but(remedy=f"edgekd bench {row.model} --device {device}")
        rows.append(row if row.figures or row.unseen else row.but(remedy=profile_command(device, threads, *key)))
    if not any(row.figures for row in rows):
        first = rows[0]
        raise MissingError(
            f"no table of {device} says enough: {first.detail}",
            f"measure {'the model' if first.unseen else 'one, once for all later predictions'}: {first.remedy}",
        )
    return PredictReport(device=device, fingerprint=fingerprint, threads=threads, rows=tuple(rows))


def _table(tables: Sequence[LatencyTable], one: ModelOnBackend) -> LatencyTable | None:
    mine = [table for table in tables if (table.backend, table.precision) == (one.backend, one.precision)]
    return max(mine, key=lambda table: len(table.rows), default=None)


def _fitted(
    device: str, fingerprint: Fingerprint, table: LatencyTable | None, one: ModelOnBackend, prior: LatencyTable | None
) -> _Fitted | str:
    """Return the predictor, or the reason why there is none."""
    count = len(table.rows) if table else 0
    if table is None:
        return f"no table of {one.backend} {one.precision.value} here"
    if count < _FEWEST:
        return f"{count} networks were measured on {one.backend} {one.precision.value}, {_FEWEST} are needed"
    if prior is None or count >= ENOUGH_ALONE:
        return _Fitted(fit_predictor(observations_of(table.rows)), "")
    observations, here = observations_of(prior.rows), prior.holds_for(fingerprint)
    words = prior_words(f"{prior.backend} {prior.precision.value}", prior.device, device, here)
    return _Fitted(
        fit_predictor(observations_of(table.rows), fit_prior(observations)), f"{len(observations)} networks on {words}"
    )


def _row(
    fingerprint: Fingerprint, tables: Sequence[LatencyTable], one: ModelOnBackend, found_or_why: _Fitted | str
) -> PredictRow:
    plain = PredictRow(
        model=one.model,
        backend=one.backend,
        precision=one.precision,
        macs=counted_macs(one.kernels),
        figures=(),
        held_out=None,
        unlike=None,
    )
    if isinstance(found_or_why, str):
        return plain.but(detail=found_or_why)
    fitted, prior = found_or_why
    (unseen,) = fitted.unseen([one.kernels])
    if unseen:
        what = _listed([_SORTS[sort] for sort in unseen])
        return plain.but(unseen=unseen, detail=f"nothing that was measured there has its {what}, or none so large")
    (found,) = fitted.predict([one.kernels], _CONFIDENCE)
    table, subject = _table(tables, one), fingerprint.digest(one.backend)
    figures = [
        Figure(
            metric="latency.p5",
            value=found.p5_us,
            unit="us",
            kind=EvidenceKind.PREDICTED,
            subject=subject,
            method=f"from {len(fitted.observations)} networks measured there: {fitted.costs.form}, Gaussian process",
            low=found.least_us,
            high=found.most_us,
            confidence=_CONFIDENCE,
        )
    ]
    observed = (
        [(row.kernels, float(row.memory_bytes)) for row in table.rows if row.memory_bytes is not None] if table else []
    )
    if len(observed) >= _FEWEST:
        value, least, most = predict_memory(fit_memory(*map(list, zip(*observed, strict=True))), one.kernels)
        figures.append(
            Figure(
                metric="memory.model",
                value=value,
                unit="B",
                kind=EvidenceKind.PREDICTED,
                subject=subject,
                method=f"from {len(observed)} networks measured there, by weights and activations",
                low=least,
                high=most,
                confidence=_CONFIDENCE,
            )
        )
    return plain.but(figures=tuple(figures), held_out=fitted.held_out, unlike=fitted.unlike(one.kernels), prior=prior)
