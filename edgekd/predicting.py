"""Inputs of `edgekd predict`: the tables that hold for a device, and a file's kernels and precision.

No model is run. A stranger's file is read as bytes; the device is fingerprinted, where it can be reached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from edgekd.artefacts import Backend
from edgekd.devices._protocol import Fingerprint
from edgekd.devices.catalogue import probe_device
from edgekd.errors import ConfigurationError, MissingError, Place, Problem
from edgekd.export.kernels.precision import precision_of_file
from edgekd.export.kernels.read import kernels_of_file
from edgekd.ir.backends import BACKENDS, can, formats_of
from edgekd.measure.models import find_models, names_of
from edgekd.measure.prediction.predict import ModelOnBackend, Unfit
from edgekd.measure.tables import (
    LatencyTable,
    of_one_state,
    profile_command,
    read_table,
    tables_called,
    tables_of,
    tables_of_others,
)

__all__ = ["DeviceTables", "asked_of", "tables_for"]


class DeviceTables(NamedTuple):
    """Device with the tables that hold for it, tables of other devices or states, and remarks on them."""

    fingerprint: Fingerprint
    tables: tuple[LatencyTable, ...]
    other_devices: tuple[LatencyTable, ...] = ()
    note: str = ""


def tables_for(
    device: str, threads: int, files: Sequence[Path] = (), notice: Callable[[str], object] | None = None
) -> DeviceTables:
    """Tables of a device in its present state, and of others; only those of ``files``, where some are given.

    Raises UnknownName, ConfigurationError on a file that is no table, and MissingError where there is none.
    """
    if files:
        read = tuple(read_table(path) for path in files)
        if not of_one_state(read):
            raise ConfigurationError.one(
                "the tables given are of different devices, or of one in different states",
                "give those of one fingerprint: see them with edgekd tables list",
                Place(str(files[0])),
            )
        same = tuple(table for table in read if table.threads == threads)
        if not same:
            counts = ", ".join(str(count) for count in sorted({table.threads for table in read}))
            raise MissingError(f"the tables given are of {counts} threads, not {threads}", "give --threads")
        note = f"the tables given are of {read[0].device}" if read[0].device != device else ""
        return DeviceTables(_fullest(read), same, (), note)
    damaged: list[str] = []
    try:
        fingerprint = probe_device(device, notice).fingerprint
    except MissingError as error:  # busy, out of reach, or known by imported tables alone
        kept = tuple(table for table in tables_called(device, note=damaged.append) if table.threads == threads)
        if not of_one_state(kept):
            raise  # none, or several states of it, and the present one is unknown
        note = f"{device} was not asked what it is now: {error.message}"
        return _with_others(_fullest(kept), kept, threads, [note, *damaged])
    found = tables_of(fingerprint, threads, note=damaged.append)
    if not found:
        before = bool(tables_called(device, note=damaged.append))
        reason = "what was measured there holds for another state of it" if before else "nothing was measured there yet"
        reason = "; ".join([reason, *dict.fromkeys(damaged)])
        raise MissingError(
            f"no table of {device} as it is now with {threads} thread{'s' if threads != 1 else ''}: {reason}",
            f"measure one, once for all later predictions: {profile_command(device, threads)}",
        )
    return _with_others(fingerprint, found, threads, damaged)


def _fullest(tables: Sequence[LatencyTable]) -> Fingerprint:
    """The device that tables of one state are of, with the most runtimes: another package's may have come later."""
    return max((table.fingerprint for table in tables), key=lambda found: len(found.runtimes))


def _with_others(
    fingerprint: Fingerprint, tables: tuple[LatencyTable, ...], threads: int, notes: list[str]
) -> DeviceTables:
    """Add tables of other devices, those that can be read, and remarks on the unreadable ones."""
    others = tables_of_others(fingerprint, threads, note=notes.append)
    return DeviceTables(fingerprint, tables, others, "; ".join(dict.fromkeys(notes)))


def asked_of(
    models: Sequence[Path], backends: Sequence[str], tables: Sequence[LatencyTable]
) -> tuple[tuple[ModelOnBackend, ...], tuple[Unfit, ...]]:
    """Every model on every backend that loads its format, and the models that can't be predicted, with the reason.

    Where no backend is named: the measured ones, or else the format's own, which is then reported as without a table.
    Raises ConfigurationError on files that are missing or no models, and where no model can be predicted.
    """
    named = [Backend.model_validate(name) for name in backends]
    measured = list(dict.fromkeys(table.backend for table in tables))
    asked, unfit, found = list[ModelOnBackend](), list[Unfit](), find_models(models)
    problems = list[Problem]()
    for artefact, name in zip(found, names_of([one.path for one in found]), strict=True):
        native = [name for name, spec in BACKENDS.items() if spec.formats[0] is artefact.format]
        own = [backend for backend in map(Backend.model_validate, native) if can(backend, "measure")]
        loads = [backend for backend in named or measured if artefact.format in formats_of(backend)]
        try:
            if named and not loads:
                raise ConfigurationError.one(
                    f"{', '.join(backends)} can't load {artefact.format.value} files",
                    f"give --backend {own[0]}, or another format",
                    Place(str(artefact.path)),
                )
            kernels, precision = kernels_of_file(artefact), precision_of_file(artefact)
        except ConfigurationError as error:
            problems += error.problems
            unfit += [Unfit(model=name, message=one.message, remedy=one.remedy) for one in error.problems]
            continue
        asked += [ModelOnBackend(name, backend, precision, kernels) for backend in loads or own]
    if not asked:
        raise ConfigurationError(problems)
    return tuple(asked), tuple(unfit)
