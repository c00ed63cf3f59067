"""For `edgekd predict`: which tables hold for a device, and what a file's kernels and precision are.

Nothing is run. A stranger's file is read as bytes; the device is asked what it is, where it can be reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekd.artefacts import BACKENDS, Backend
from edgekd.devices._protocol import Fingerprint
from edgekd.devices.catalogue import probe_device
from edgekd.errors import ConfigurationError, DeviceBusy, DeviceUnreachable, MissingError, Place
from edgekd.export.kernels.precision import precision_of_file
from edgekd.export.kernels.read import kernels_of_file
from edgekd.measure.models import find_models
from edgekd.measure.predict import Asked
from edgekd.measure.tables import LatencyTable, kept_tables, read_table, tables_of

__all__ = ["asked_of", "known_of"]


def known_of(
    device: str, threads: int, files: Sequence[Path] = ()
) -> tuple[Fingerprint, tuple[LatencyTable, ...], str]:
    """The device's fingerprint, the tables to predict from, and what has to be said of them.

    Raises UnknownName, ConfigurationError on a file that is no table, and MissingError where there is none.
    """
    if files:
        read = tuple(read_table(path) for path in files)
        others = {table.device for table in read} - {device}
        note = f"the tables given are of {', '.join(sorted(others))}" if others else ""
        return read[0].fingerprint, tuple(table for table in read if table.threads == threads), note
    try:
        fingerprint = probe_device(device).fingerprint
    except (DeviceUnreachable, DeviceBusy) as error:
        kept = [table for table in kept_tables() if table.device == device and table.threads == threads]
        if not kept:
            raise
        subject = kept[-1].fingerprint.digest()
        same = tuple(table for table in kept if table.fingerprint.digest() == subject)
        return kept[-1].fingerprint, same, f"{device} was not asked what it is now: {error.message}"
    found = tables_of(fingerprint, threads)
    if not found:
        before = any(table.device == device for table in kept_tables())
        reason = "what was measured there holds for another state of it" if before else "nothing was measured there yet"
        raise MissingError(
            f"no table of {device} as it is now with {threads} thread{'s' if threads != 1 else ''}: {reason}",
            f"measure one, once for all later predictions: edgekd profile {device}",
        )
    return fingerprint, found, ""


def asked_of(models: Sequence[Path], backends: Sequence[str], tables: Sequence[LatencyTable]) -> tuple[Asked, ...]:
    """Every model on every backend that loads its format; where none is named, on those that were measured."""
    named = [Backend.model_validate(name) for name in backends]
    measured = list(dict.fromkeys(table.backend for table in tables))
    asked = []
    for artefact in find_models(models):
        loads = [backend for backend in named or measured if artefact.format in BACKENDS[str(backend)]]
        if not loads:
            known = ", ".join(map(str, named or measured))
            raise ConfigurationError.one(
                f"no backend loads it ({known})", "give --backend, or another format", Place(str(artefact.path))
            )
        kernels, precision = kernels_of_file(artefact), precision_of_file(artefact)
        asked += [Asked(artefact.path.name, backend, precision, kernels) for backend in loads]
    return tuple(asked)
