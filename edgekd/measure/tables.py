"""Latency tables: measurements of a device kept for later searches, profiles and predictions there.

A table is one JSON file (``edgekd.latency-table/1``): a device by its fingerprint, one backend, precision and number of
threads, and its rows: a network's kernels with the 5th percentile of a call and the memory that the model adds. Rows of
one network replace one another; from a table that grows past its limit the oldest are removed. Tables are kept in the
person's data folder, and travel as files: `edgekd tables export` and `import`.

A table holds for its fingerprint alone. Another governor, runtime version or set of limits is another device, whose
table is at most a prior for a short one (`edgekd.measure.prediction.priors`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Literal

import platformdirs
from filelock import FileLock
from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from edgekd.artefacts import Backend
from edgekd.devices._protocol import Fingerprint
from edgekd.errors import ConfigurationError, Place, UnknownName, UsageError, printable
from edgekd.evidence import EvidenceKind, weakest
from edgekd.ir.backends import BACKENDS
from edgekd.ir.kernels import Kernels, checked
from edgekd.ir.numerics import Precision
from edgekd.records import Digest, Filed, Record, Shown
from edgekd.store.atomic import write_json
from edgekd.store.schema import read_record

__all__ = [
    "LatencyTable",
    "TableRow",
    "TablesAnswer",
    "add_rows",
    "export_table",
    "import_tables",
    "kept_tables",
    "list_tables",
    "of_one_state",
    "profile_command",
    "read_table",
    "tables_folder",
    "tables_of",
    "tables_of_others",
]

_MOST_ROWS = 2000
_MOST_KERNELS = 200_000  # of all rows: about 30 MB


class TableRow(Record):
    """Row of one measured network."""

    kernels: Kernels
    p5_us: PositiveFloat
    memory_bytes: int | None = None
    sha256: str = ""  # of the file; empty where it wasn't kept

    _a_network = field_validator("kernels")(checked)


class LatencyTable(Filed):
    """Latency table of one device, backend, precision and number of threads."""

    schema_: Literal["edgekd.latency-table/1"] = Field(default="edgekd.latency-table/1", alias="schema")
    device: str
    fingerprint: Fingerprint
    backend: Backend
    precision: Precision
    threads: PositiveInt = 1
    kind: EvidenceKind = EvidenceKind.MEASURED
    rows: tuple[TableRow, ...]

    @field_validator("backend")
    @classmethod
    def _known_here(cls, backend: Backend) -> Backend:
        if str(backend) not in BACKENDS:
            raise ValueError(f"no backend {printable(str(backend))[:60]} is known (known: {', '.join(BACKENDS)})")
        return backend

    @property
    def subject(self) -> Digest:
        """Digest of the device for this backend."""
        return self.fingerprint.digest(self.backend)

    def holds_for(self, fingerprint: Fingerprint) -> bool:
        """True where it was measured on that device in that state."""
        return self.subject == fingerprint.digest(self.backend)

    @property
    def name(self) -> str:
        """Name of the file: all that distinguishes tables, device and fingerprint first."""
        backend = str(self.backend).replace("/", "-")
        subject = self.subject[:12]
        return f"{_safe(self.device)}-{subject}-{backend}-{self.precision.value}-{self.threads}.json"


class TableSummary(Record):
    """Table without its rows."""

    name: str
    device: str
    backend: Backend
    precision: Precision
    threads: int
    rows: int


class TablesAnswer(Shown):
    """Tables, without their rows."""

    schema_: Literal["edgekd.tables/1"] = Field(default="edgekd.tables/1", alias="schema")
    tables: tuple[TableSummary, ...]
    said: str = ""
    damaged: tuple[str, ...] = ()  # files that can't be read, with a remedy for each

    def lines(self) -> list[str]:
        """Format two lines a table."""
        lines = [self.said] if self.said else []
        for table in self.tables:
            threads = f"{table.threads} thread{'s' if table.threads != 1 else ''}"
            lines += [
                f"{table.device} . {table.backend} {table.precision.value} . {threads} . {table.rows} networks",
                f"  {table.name.removesuffix('.json')}",
            ]
        lines += [line for words in self.damaged for line in words.split("\n")]
        return lines or ["no table is kept here: edgekd profile DEVICE measures some"]


def tables_folder() -> Path:
    """Folder of this person's tables."""
    return Path(platformdirs.user_data_dir("edgekd")) / "tables"


Note = Callable[[str], None] | None
"""Called for each damaged table, and the others are used without it; None: the first one is an error."""


def _read(folder: Path | None, patterns: Iterable[str], note: Note) -> Iterator[LatencyTable]:
    folder = folder or tables_folder()
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}) if folder.is_dir() else ():
        try:
            yield read_record(path, LatencyTable)
        except (ConfigurationError, OSError) as error:
            if note is None:
                raise
            note(str(error))


def kept_tables(folder: Path | None = None, note: Note = None) -> tuple[LatencyTable, ...]:
    """All tables, by name. Raises OSError, and ConfigurationError as `Note` says."""
    return tuple(_read(folder, ["*.json"], note))


def tables_of(
    fingerprint: Fingerprint, threads: int, folder: Path | None = None, note: Note = None
) -> tuple[LatencyTable, ...]:
    """Tables of a device in its present state, under any name. Raises as `kept_tables` does."""
    subjects = {fingerprint.digest(Backend.model_validate(name)) for name in BACKENDS}
    found = _read(folder, [f"*-{subject[:12]}-*-{threads}.json" for subject in subjects], note)
    return tuple(table for table in found if table.threads == threads and table.holds_for(fingerprint))


def tables_called(device: str, folder: Path | None = None, note: Note = None) -> tuple[LatencyTable, ...]:
    """Tables of a device by its name, in any state of it. Raises as `kept_tables` does."""
    return tuple(table for table in _read(folder, [f"{_safe(device)}-*.json"], note) if table.device == device)


def tables_of_others(
    fingerprint: Fingerprint, threads: int, folder: Path | None = None, note: Note = None
) -> tuple[LatencyTable, ...]:
    """Tables of other devices, and of this one in other states. Raises as `kept_tables` does."""
    found = _read(folder, [f"*-{threads}.json"], note)
    return tuple(table for table in found if table.threads == threads and not table.holds_for(fingerprint))


def of_one_state(tables: Sequence[LatencyTable]) -> bool:
    """True where all are of one device in one state; False where there are none."""
    devices, states = (
        {table.fingerprint.digest() for table in tables},
        {(table.backend, table.subject) for table in tables},
    )
    return len(devices) == 1 and len(states) == len({table.backend for table in tables})


def profile_command(
    device: str, threads: int, backend: Backend | None = None, precision: Precision | None = None
) -> str:
    """Command that fills a table: all of a device's, or that of a backend and precision."""
    words = ["edgekd profile", device]
    words += ["--backend", str(backend)] if backend is not None else []
    words += ["--precision", precision.value] if precision is not None else []
    words += ["--threads", str(threads)] if threads != 1 else []
    return " ".join(words)


def add_rows(table: LatencyTable, folder: Path | None = None) -> LatencyTable:
    """Add a table's rows to the stored table of the same name; returns all rows. Raises OSError."""
    folder = folder or tables_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / table.name
    with FileLock(folder / f".{table.name}.lock"):
        merged = table
        if path.is_file():
            before = read_record(path, LatencyTable)
            merged = table.but(rows=_merged(before.rows, table.rows), kind=weakest((before.kind, table.kind)))
        write_json(path, merged)
    return merged


def list_tables(folder: Path | None = None) -> TablesAnswer:
    """All stored tables."""
    damaged: list[str] = []
    tables = kept_tables(folder, damaged.append)
    return TablesAnswer(tables=tuple(map(_summary, tables)), damaged=tuple(damaged))


def import_tables(paths: Sequence[str | PathLike[str]], folder: Path | None = None) -> TablesAnswer:
    """Add the files' rows to the stored tables, once all were read: a row replaces the stored one of its network.

    Raises ConfigurationError where a file is no table or can't be opened.
    """
    read = [read_table(Path(path)) for path in paths]
    return TablesAnswer(tables=tuple(_summary(add_rows(table, folder)) for table in read), said="taken in:")


def export_table(name: str, path: str | PathLike[str], force: bool = False, folder: Path | None = None) -> TablesAnswer:
    """Write a table to a file. Raises UnknownName, and UsageError where several names match or the file exists."""
    path = Path(path)
    damaged: list[str] = []
    kept = kept_tables(folder, damaged.append)
    exact = [table for table in kept if table.name.removesuffix(".json") == name]
    found = exact or [table for table in kept if table.name.startswith(name)]
    if not found:
        names = [table.name.removesuffix(".json") for table in kept]
        raise UnknownName("table", name, names, remedy="; ".join(damaged))
    if len(found) > 1:
        those = ", ".join(table.name.removesuffix(".json") for table in found)
        raise UsageError(f"{len(found)} tables begin with `{name}`: {those}", "give more of the name")
    if path.exists() and not force:
        raise UsageError(f"{path} is there already", "give another file, or --force to replace it")
    write_json(path, found[0])
    return TablesAnswer(tables=(_summary(found[0]),), said=f"wrote {path}")


def read_table(path: Path) -> LatencyTable:
    """Read a table's file. Raises ConfigurationError where it is none or can't be opened."""
    try:
        return read_record(path, LatencyTable)
    except OSError as error:
        raise ConfigurationError.one(f"can't be read: {error.strerror}", place=Place(str(path))) from error


def _safe(device: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-.") else "_" for c in device)[:60]


def _summary(table: LatencyTable) -> TableSummary:
    return TableSummary(
        name=table.name,
        device=table.device,
        backend=table.backend,
        precision=table.precision,
        threads=table.threads,
        rows=len(table.rows),
    )


def _merged(before: Iterable[TableRow], new: Sequence[TableRow]) -> tuple[TableRow, ...]:
    """Merge rows by network, the later one counting; only the newest where there are too many."""
    found: dict[Kernels, TableRow] = {}
    for row in (*before, *new):
        found.pop(row.kernels, None)
        found[row.kernels] = row
    kept, room = list[TableRow](), _MOST_KERNELS
    for row in reversed(list(found.values())[-_MOST_ROWS:]):
        room -= len(row.kernels)
        if room < 0:
            break
        kept.append(row)
    return tuple(reversed(kept))
