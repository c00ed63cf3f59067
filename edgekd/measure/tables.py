"""Latency tables: what was measured on a device stays known, for the next search, profile or prediction there.

A table is one JSON file (``edgekd.latency-table/1``): a device by its fingerprint, one backend, precision and number
of threads, and its rows: a network's kernels with the 5th percentile of a call and what the model adds to memory. Rows
of one network replace one another; of a table that grows past its limit the oldest go. Tables are kept in the
person's data folder, and travel as files: `edgekd tables export` and `import`.

A table holds for its fingerprint alone. Another governor, runtime version or set of limits is another device, whose
table is at most what a short one starts from (`edgekd.measure.prediction.priors`).
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
from edgekd.records import Filed, Record, Shown
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
    "profile_command",
    "read_table",
    "tables_elsewhere",
    "tables_folder",
    "tables_of",
]

_MOST_ROWS = 2000
_MOST_KERNELS = 200_000  # of all rows: about 30 MB


class TableRow(Record):
    """One network as it was measured."""

    kernels: Kernels
    p5_us: PositiveFloat
    memory_bytes: int | None = None
    sha256: str = ""  # of the file; empty where it wasn't kept

    _a_network = field_validator("kernels")(checked)


class LatencyTable(Filed):
    """What is known of one device, backend, precision and number of threads."""

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
    def name(self) -> str:
        """The file's name: everything that tells one table from another, device and fingerprint first."""
        backend = str(self.backend).replace("/", "-")
        subject = self.fingerprint.digest()[:12]
        return f"{_safe(self.device)}-{subject}-{backend}-{self.precision.value}-{self.threads}.json"


class TableSummary(Record):
    """A table, without its rows."""

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
    damaged: tuple[str, ...] = ()  # files that can't be read, and what to do about each

    def lines(self) -> list[str]:
        """Two lines a table."""
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
    """Where this person's tables are kept."""
    return Path(platformdirs.user_data_dir("edgekd")) / "tables"


Note = Callable[[str], None] | None
"""Is told of each table that is damaged, and the others are of use without it; None: the first one is an error."""


def _read(folder: Path | None, pattern: str, note: Note) -> Iterator[LatencyTable]:
    folder = folder or tables_folder()
    for path in sorted(folder.glob(pattern)) if folder.is_dir() else ():
        try:
            yield read_record(path, LatencyTable)
        except (ConfigurationError, OSError) as error:
            if note is None:
                raise
            note(str(error))


def kept_tables(folder: Path | None = None, note: Note = None) -> tuple[LatencyTable, ...]:
    """All of them, by name. Raises OSError, and ConfigurationError as `Note` says."""
    return tuple(_read(folder, "*.json", note))


def tables_of(
    fingerprint: Fingerprint, threads: int, folder: Path | None = None, note: Note = None
) -> tuple[LatencyTable, ...]:
    """Those that hold for a device as it is now, whatever it is called. Raises as `kept_tables` does."""
    subject = fingerprint.digest()
    found = _read(folder, f"*-{subject[:12]}-*-{threads}.json", note)
    return tuple(table for table in found if table.threads == threads and table.fingerprint.digest() == subject)


def tables_called(device: str, folder: Path | None = None, note: Note = None) -> tuple[LatencyTable, ...]:
    """Those of a device by its name, in any state of it. Raises as `kept_tables` does."""
    return tuple(table for table in _read(folder, f"{_safe(device)}-*.json", note) if table.device == device)


def tables_elsewhere(
    fingerprint: Fingerprint, threads: int, folder: Path | None = None, note: Note = None
) -> tuple[LatencyTable, ...]:
    """Those of other devices, and of this one in other states. Raises as `kept_tables` does."""
    subject = fingerprint.digest()
    found = _read(folder, f"*-{threads}.json", note)
    return tuple(table for table in found if table.threads == threads and table.fingerprint.digest() != subject)


def profile_command(
    device: str, threads: int, backend: Backend | None = None, precision: Precision | None = None
) -> str:
    """What fills a table: the whole of a device's, or that of a backend and precision."""
    words = ["edgekd profile", device]
    words += ["--backend", str(backend)] if backend is not None else []
    words += ["--precision", precision.value] if precision is not None else []
    words += ["--threads", str(threads)] if threads != 1 else []
    return " ".join(words)


def add_rows(table: LatencyTable, folder: Path | None = None) -> LatencyTable:
    """Put a table's rows to those kept of the same name; returns all of them. Raises OSError."""
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
    """All that are kept."""
    damaged: list[str] = []
    tables = kept_tables(folder, damaged.append)
    return TablesAnswer(tables=tuple(map(_summary, tables)), damaged=tuple(damaged))


def import_tables(paths: Sequence[str | PathLike[str]], folder: Path | None = None) -> TablesAnswer:
    """Take the files' rows in, once all were read: a row of a network takes the place of one's own.

    Raises ConfigurationError where one is no table or can't be opened.
    """
    read = [read_table(Path(path)) for path in paths]
    return TablesAnswer(tables=tuple(_summary(add_rows(table, folder)) for table in read), said="taken in:")


def export_table(name: str, path: str | PathLike[str], force: bool = False, folder: Path | None = None) -> TablesAnswer:
    """Write one to a file. Raises UnknownName, and UsageError where several begin so or the file is there."""
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
    """A table's file. Raises ConfigurationError where it is none or can't be opened."""
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
    """By network, the later one counting; the newest of them where there are too many."""
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
