"""Which other table a short one starts from: of the same backend and precision, then of the nearest device, then the
fullest.

What was measured before a runtime was upgraded, before the governor was changed or on another board holds for none but
itself, yet says how kernels compare with each other. So it may be a prior, and nothing more: its latencies are scaled
to what was measured here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgekd.artefacts import Backend
from edgekd.devices._protocol import Fingerprint
from edgekd.ir.numerics import Precision
from edgekd.measure.prediction.predictor import ENOUGH_ALONE
from edgekd.measure.tables import LatencyTable, TableRow
from edgekd.store.predicted import Reading

__all__ = ["MOST_READINGS", "choose_prior", "prior_words", "readings_of"]

MOST_READINGS = 300
"""The newest rows of a table: more say little, and every fit takes longer."""


def choose_prior(
    backend: Backend, precision: Precision, device: str, fingerprint: Fingerprint, tables: Iterable[LatencyTable]
) -> LatencyTable | None:
    """The table that the device's own one of a backend and precision starts from; None where no other has enough.

    Of two that are as near, that of this very state of the device comes first, then that of another state of it.
    """
    subject = fingerprint.digest()

    def nearness(table: LatencyTable) -> tuple[bool, int, int, str]:
        alike = (table.backend, table.precision) == (backend, precision)
        here = 2 if table.fingerprint.digest() == subject else int(table.device == device)
        return alike, here, len(table.rows), table.name

    enough = [(nearness(table), table) for table in tables if len(table.rows) >= ENOUGH_ALONE]
    others = [(near, table) for near, table in enough if near[:2] != (True, 2)]  # that one is the table itself
    return max(others, key=lambda each: each[0])[1] if others else None


def prior_words(deployment: str, owner: str, device: str, here: bool = False) -> str:
    """A prior as a person reads it: `litert/xnnpack int8 of pi5 in another state`."""
    if here:
        return deployment
    return f"{deployment} of {owner}" + (" in another state" if owner == device else "")


def readings_of(rows: Sequence[TableRow]) -> tuple[Reading, ...]:
    """The newest rows, as a predictor is fitted to them."""
    return tuple(
        Reading(kernels=row.kernels, p5_us=row.p5_us, memory_bytes=row.memory_bytes) for row in rows[-MOST_READINGS:]
    )
