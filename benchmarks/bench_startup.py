"""What edgekd costs: `edgekd --help` over a bare Python, what an import loads, memory of searches, minutes of commands.

Cells: `help` (processes of both in turn; the difference of the least times is edgekd's own, the medians stand beside
it), `imports` (heavy modules in sys.modules after ``import edgekd`` and ``import edgekd.api``: there must be none),
`memory` (the most that a whole search on the digits held resident at once, over all its processes, sampled 20 times a
second; pages that processes share are counted in each, so it is an upper bound), `memory_cifar` (the same of a search
on CIFAR-10 with a ResNet-56 teacher; only with EDGEKD_DATA, like `cifar_search.py`) and `commands` (wall-clock time of
`make demo` and `make unit`; with --all `commands_test`, of `make test`).

Run: python benchmarks/bench_startup.py [--table] [--all]. Eight minutes on an idle computer, twelve with the data.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from cells import EDGEKD, ROOT, Cells, arguments, folders, opened, table, write_yaml

NAME = "startup"
HEAVY = ("torch", "onnxruntime", "openvino", "ai_edge_litert", "litert_torch", "tensorflow", "onnx", "optuna")


def help_ms(options: argparse.Namespace) -> dict[str, Any]:
    """Both commands, one process of each in turn."""
    commands = {
        "python": [sys.executable, "-c", ""],
        "help": [str(EDGEKD), "--help"],
        "version": [str(EDGEKD), "--version"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(4 if options.tiny else 25):
        for name, command in commands.items():
            begun = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            if number:  # the first ones read files from the disk
                times[name].append(1e3 * (time.perf_counter() - begun))
    least = {name: min(values) for name, values in times.items()}
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {"least_ms": least, "median_ms": medians, "over_python_ms": least["help"] - least["python"]}


def imports() -> dict[str, Any]:
    """Heavy modules that an import brings in."""
    found = {}
    for module in ("edgekd", "edgekd.api", "edgekd.cli.main"):
        code = f"import json, sys, {module}; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
        found[module] = json.loads(said)
    return {"loaded": found}


def memory(project: Path, budget: str, folder: Path) -> dict[str, Any]:
    """A whole search, watched from outside."""
    shutil.rmtree(folder, ignore_errors=True)
    opened().close()  # wait until nobody else measures
    command = [EDGEKD, "search", project, "--run", folder, "--budget", budget, "-q"]
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL)
    watched, most, at_most, own = psutil.Process(process.pid), 0, {}, 0
    while process.poll() is None:
        parts = {}
        try:
            for one in (watched, *watched.children(recursive=True)):
                parts[f"{one.name()}:{one.pid}"] = one.memory_info().rss
        except psutil.NoSuchProcess:  # it ended between being listed and being asked
            continue
        if sum(parts.values()) > most:
            most, at_most = sum(parts.values()), parts
        own = max(own, parts.get(f"{watched.name()}:{watched.pid}", 0))
        time.sleep(0.05)
    if process.returncode not in (0, 5, 6):
        raise SystemExit(f"the search ended with {process.returncode}: nothing was learnt of its memory")
    return {
        "exit_code": process.returncode,
        "budget": budget,
        "most_bytes": most,
        "host_most_bytes": own,
        "processes_then": sorted(at_most.values(), reverse=True),
    }


def cifar_project(options: argparse.Namespace, folder: Path) -> Path:
    """That of `cifar_search.py` over its own space, with few epochs and a target that everything meets."""
    from cifar_search import SPACE, project

    target = {"schema": "edgekd.target/1", "device": "this-computer", "backends": ["litert/xnnpack"], "threads": 1}
    write_yaml(folder / "as-the-reference.yaml", target)
    plan = {"epochs": 2, "views": 2, "short_epochs": 1}
    content = {
        **project(options.tiny, plan, SPACE),
        "search": {"seed": options.seed, "trials": 2, "finalists": 1, "accuracy": {"short": {"epochs": 1}}},
    }
    return write_yaml(folder / "project.yaml", content)


def commands(*names: str) -> dict[str, Any]:
    """Each once, after set-up."""
    opened().close()
    subprocess.run(["make", "setup"], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    seconds = {}
    for name in names:
        begun = time.perf_counter()
        subprocess.run(["make", name], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        seconds[f"make {name}"] = round(time.perf_counter() - begun, 1)
    return {"command_s": seconds}


def printed(cells: Cells) -> str:
    """What is known so far."""
    found, rows = cells.all(), []
    if "help" in found:
        cell = found["help"]
        rows += [
            (f"{name}: least, median", f"{cell['least_ms'][name]:.0f} ms, {cell['median_ms'][name]:.0f} ms")
            for name in cell["least_ms"]
        ]
        rows.append(("edgekd --help over bare Python", f"{cell['over_python_ms']:.0f} ms"))
    if "imports" in found:
        rows += [
            (f"import {module} loads", ", ".join(heavy) or "neither torch nor a runtime")
            for module, heavy in found["imports"]["loaded"].items()
        ]
    for name, words in (("memory", "a search on the digits"), ("memory_cifar", "a search on CIFAR-10")):
        if name in found:
            most, own = (found[name][f"{whose}most_bytes"] / 2**20 for whose in ("", "host_"))
            rows.append((f"{words} at its most, all processes", f"{most:,.0f} MiB"))
            rows.append(("of which its own process at its most", f"{own:,.0f} MiB"))
    for cell in ("commands", "commands_test"):
        for command, seconds in found.get(cell, {}).get("command_s", {}).items():
            rows.append((f"{command}, after set-up", f"{seconds:.0f} s"))
    return table(("edgekd", "found"), rows)


def main() -> None:
    parser = arguments(__doc__, NAME)
    parser.add_argument("--all", action="store_true", help="time `make test` too: a quarter of an hour")
    options = parser.parse_args()
    results, runs = folders(options, NAME)
    cells = Cells(NAME, results, {"tiny": options.tiny, "seed": options.seed})
    if not options.table:
        cells.cell("help", lambda: help_ms(options))
        cells.cell("imports", imports)
        digits, budget = ROOT / "examples" / "digits" / "project.yaml", "40 s" if options.tiny else "150 s"
        cells.cell("memory", lambda: memory(digits, budget, runs / "search"))
        if os.environ.get("EDGEKD_DATA"):
            cifar = cifar_project(options, runs / "cifar")
            cells.cell("memory_cifar", lambda: memory(cifar, "15 min", runs / "cifar" / "run"))
        if not options.tiny:
            cells.cell("commands", lambda: commands("demo", "unit"))
        if options.all:
            cells.cell("commands_test", lambda: commands("test"))
    print(printed(cells))


if __name__ == "__main__":
    main()
