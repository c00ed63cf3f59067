"""What the benchmarks share: cells, data, machine, and a table of 80 columns.

A cell is one JSON file under ``results/BENCHMARK/``, written when its work is done: a script that is started again
does only what has no cell yet. A cell that was made with other settings is refused, not mixed in.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from edgekd.agent.fingerprint import fingerprint
from edgekd.devices._protocol import DeviceSession
from edgekd.devices.catalogue import open_device
from edgekd.errors import DeviceBusy
from edgekd.ir.backends import asked_of_agent
from edgekd.store.atomic import write_bytes

__all__ = [
    "Cells",
    "arguments",
    "cifar10",
    "data_folder",
    "edgekd",
    "folders",
    "opened",
    "patiently",
    "table",
    "versions",
    "write_yaml",
]

Result = TypeVar("Result")

ROOT = Path(__file__).resolve().parents[1]
EDGEKD = Path(sys.executable).parent / "edgekd"
_VERSIONED = ("edgekd", "torch", "numpy", "onnxruntime", "openvino", "ai-edge-litert", "litert-torch", "optuna")
_WAIT_S = 1800.0


class Cells:
    """The cells of one benchmark. ``settings`` are those that change results."""

    def __init__(self, benchmark: str, folder: Path, settings: Mapping[str, Any]) -> None:
        self.benchmark, self.folder, self.settings = benchmark, folder / benchmark, dict(settings)

    def get(self, name: str) -> dict[str, Any] | None:
        """A finished cell, or None. Ends the script where it was made with other settings."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            return None
        cell: dict[str, Any] = json.loads(path.read_text())
        if cell["settings"] != self.settings:
            raise SystemExit(f"{path} was made with {cell['settings']}, asked for is {self.settings}: give --results")
        return cell

    def cell(self, name: str, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """A finished cell, or the work done and written down. ``evidence`` and ``seconds`` are filled in."""
        found = self.get(name)
        if found is None:
            print(f"{self.benchmark}: {name} ...", file=sys.stderr, flush=True)
            begun, load = time.monotonic(), os.getloadavg()[0]
            facts = dict(work())
            found = {
                "schema": "edgekd.benchmark/1",
                "benchmark": self.benchmark,
                "cell": name,
                "evidence": "measured",
                "machine": fingerprint(asked_of_agent()),
                "versions": versions(),
                "settings": self.settings,
                "load_average_before": round(load, 2),
                "seconds": round(time.monotonic() - begun, 1),
                **facts,
            }
            self.folder.mkdir(parents=True, exist_ok=True)
            write_bytes(self.folder / f"{name}.json", (json.dumps(found, indent=1) + "\n").encode())
        return found

    def all(self) -> dict[str, dict[str, Any]]:
        """Every finished cell by name."""
        found = {path.stem: self.get(path.stem) for path in sorted(self.folder.glob("*.json"))}
        return {name: cell for name, cell in found.items() if cell is not None}


def versions() -> dict[str, str]:
    """Of Python and of the packages that change figures."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _VERSIONED}}


def arguments(description: str | None, benchmark: str) -> argparse.ArgumentParser:
    """A parser with what every script takes. ``--tiny`` writes beside the runs, never among the results."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a few minutes, to see that everything works")
    parser.add_argument("--table", action="store_true", help="print the table of the finished cells, and run nothing")
    parser.add_argument("--results", type=Path, help="where the cells are kept")
    parser.add_argument("--runs", type=Path, help=f"where runs are kept (default: runs/{benchmark})")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def folders(options: argparse.Namespace, benchmark: str) -> tuple[Path, Path]:
    """Where cells and runs of this call are kept."""
    runs = (options.runs or ROOT / "runs" / (f"tiny-{benchmark}" if options.tiny else benchmark)).absolute()
    results = options.results or (runs / "results" if options.tiny else ROOT / "benchmarks" / "results")
    runs.mkdir(parents=True, exist_ok=True)
    return results.absolute(), runs


def data_folder() -> Path:
    """The folder named by the environment variable EDGEKD_DATA."""
    named = os.environ.get("EDGEKD_DATA")
    if not named or not Path(named).is_dir():
        raise SystemExit("set EDGEKD_DATA to the folder with the data packs (see benchmarks/README.md)")
    return Path(named).resolve()


def cifar10(tiny: bool) -> Path:
    """CIFAR-10 as one .npz: the whole set, unpacked once, or a small stratified part of it."""
    folder = data_folder()
    if tiny:
        return folder / "cifar10-tiny.npz"
    unpacked = ROOT / "runs" / "data" / "cifar10.npz"
    if not unpacked.is_file():
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        draft = unpacked.with_name("draft.npz")
        subprocess.run([sys.executable, folder / "unpack.py", folder / "cifar10-webp.npz", draft], check=True)
        draft.replace(unpacked)
    return unpacked


def write_yaml(path: Path, content: Mapping[str, Any]) -> Path:
    """A project or target file, in the JSON that is also YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def edgekd(*words: str | Path, taken: Collection[int] = (0, 5, 6)) -> tuple[int, dict[str, Any]]:
    """Run the command as a person would: its exit code and its answer. Progress goes to stderr.

    Ends the script where the command ends with a code that isn't taken: an answer (0), nothing that fits (5) and noise
    (6) are.
    """
    begun = time.monotonic()
    while True:
        command = [EDGEKD, *words, "--format", "json"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False)
        answer: dict[str, Any] = json.loads(done.stdout) if done.stdout.strip() else {}
        if answer.get("error") != "DeviceBusy" or time.monotonic() - begun > _WAIT_S:
            break
        time.sleep(5)
    if done.returncode not in taken:
        raise SystemExit(f"edgekd {' '.join(map(str, words))} ended with {done.returncode}: {answer.get('message')}")
    return done.returncode, answer


def patiently(work: Callable[[], Result]) -> Result:
    """Done as soon as nobody else measures on this computer."""
    begun = time.monotonic()
    while True:
        try:
            return work()
        except DeviceBusy:
            if time.monotonic() - begun > _WAIT_S:
                raise
            time.sleep(2)


def opened() -> DeviceSession:
    """This computer."""
    return patiently(lambda: open_device("this-computer").open())


def table(head: Sequence[str], rows: Sequence[Sequence[object]], note: str = "") -> str:
    """Columns as wide as they need, the first to the left; lines of 80 columns at most."""
    cells = [[str(value) for value in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        " ".join(f"{text:<{width}}" if not at else f"{text:>{width}}" for at, (text, width) in enumerate(pairs))
        for pairs in ([*zip(row, widths, strict=True)] for row in cells)
    ]
    too_wide = [line for line in lines if len(line.rstrip()) > 80]
    if too_wide:
        raise ValueError(f"a table of more than 80 columns: {too_wide[0]}")
    return "\n".join([*(line.rstrip() for line in lines), *([note] if note else [])])
