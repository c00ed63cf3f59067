"""Choice of the prior for a short latency table: of the same backend and precision, then of the nearest device, then
the fullest.

Latencies from another runtime version, governor or board do not transfer in absolute terms; ratios between kernels
usually do. So such a table serves as a prior, and nothing more: its latencies are scaled to the observations here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgekd.artefacts import Backend
from edgekd.devices._protocol import Fingerprint
from edgekd.ir.numerics import Precision
from edgekd.measure.prediction.predictor import ENOUGH_ALONE
from edgekd.measure.tables import LatencyTable, TableRow
from edgekd.store.predicted import Observation

__all__ = ["MOST_OBSERVATIONS", "choose_prior", "observations_of", "prior_words"]

MOST_OBSERVATIONS = 300
"""Newest rows of a table to use: more add little, and every fit takes longer."""


def choose_prior(
    backend: Backend, precision: Precision, device: str, fingerprint: Fingerprint, tables: Iterable[LatencyTable]
) -> LatencyTable | None:
    """Choose the prior table of a device's own table of a backend and precision; None where no other has enough rows.

    Of two that are equally near, that of this very state of the device comes first, then that of another state of it.
    """

    def nearness(table: LatencyTable) -> tuple[bool, int, int, str]:
        alike = (table.backend, table.precision) == (backend, precision)
        here = 2 if table.holds_for(fingerprint) else int(table.device == device)
        return alike, here, len(table.rows), table.name

    enough = [(nearness(table), table) for table in tables if len(table.rows) >= ENOUGH_ALONE]
    others = [(near, table) for near, table in enough if near[:2] != (True, 2)]  # that one is the table itself
    return max(others, key=lambda each: each[0])[1] if others else None


def prior_words(deployment: str, owner: str, device: str, here: bool = False) -> str:
    """Format a prior: `litert/xnnpack int8 of pi5 in another state`."""
    if here:
        return deployment
    return f"{deployment} of {owner}" + (" in another state" if owner == device else "")


def observations_of(rows: Sequence[TableRow]) -> tuple[Observation, ...]:
    """Newest rows as observations for a predictor."""
    return tuple(
        Observation(kernels=row.kernels, p5_us=row.p5_us, memory_bytes=row.memory_bytes)
        for row in rows[-MOST_OBSERVATIONS:]
    )
