"""Does `edgekd bench` claim a difference where there is none, and find one where there is? On this machine, as it is.

Each comparison is what a bench decides by: two models side by side in fresh processes, the first one twice, more
processes while noise decides, then the interval of the ratio against the A/A noise.

- `same`: a residual network of 20 blocks and a copy of its file; any difference that is claimed is wrong.
- `blocks`: 21 blocks against 20; `spin`: 210 us of busy waiting against 200. Both are slower by 5 %, to be told so.
- `busy`: the first two again while another process keeps one core busy. Nothing may be claimed that isn't so.

Cells hold ten comparisons each, so that a run that ends early has kept the others. Counts are judged by the exact
binomial interval.

Run: python benchmarks/bench_aa.py [--only same] [--table]. --tiny takes two minutes and proves nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cells import Cells, arguments, folders, opened, patiently, table
from scipy.stats import binomtest

NAME = "bench_aa"
A_CELL = 10
COUNTS = {"same": 200, "blocks": 100, "spin": 100, "busy-same": 20, "busy-blocks": 20}
BACKEND = "litert/xnnpack"


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What changes results."""
    return {"seed": options.seed, "tiny": options.tiny, "backend": BACKEND, "rounds": 5, "round_ms": 10.0}


def model(blocks: int, folder: Path) -> Path:
    """A chain of that many equal blocks of 16 channels at 16 x 16, untrained, as a .tflite file."""
    from edgekd.agent.fingerprint import fingerprint
    from edgekd.artefacts import Backend, Format
    from edgekd.devices._protocol import Fingerprint
    from edgekd.export._protocol import ExportOptions
    from edgekd.export.converter import Converter
    from edgekd.ir.backends import asked_of_agent
    from edgekd.students.resnet import ResNet
    from edgekd.students.student import new_student, save_student
    from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

    path = folder / f"blocks{blocks}.tflite"
    if path.is_file():
        return path
    spec = TaskSpec(name="blocks", input=InputSpec(shape=(3, 16, 16)), head=HeadSpec(classes=10), data="0" * 64)
    family = ResNet.model_validate({"space": {"width": [16, 16], "depth": [blocks, blocks]}, "stages": 1})
    save_student(new_student(family, family.space(spec).at(0), spec, seed=0), folder / f"student{blocks}")
    here, backend = Fingerprint.model_validate(fingerprint(asked_of_agent())), Backend.model_validate(BACKEND)
    with Converter(folder / "convert") as converter:
        made = converter.convert(
            folder / f"student{blocks}", Format.TFLITE, ExportOptions(), backend, here, folder / "draft.tflite", {}
        )
    if made.artefact is None:
        raise SystemExit(f"{blocks} blocks can't be exported: {made.detail}")
    made.artefact.path.replace(path)
    return path


def jobs_of(name: str, folder: Path) -> tuple[Any, Any]:
    """The slower one, or the copy, and the other."""
    from edgekd.artefacts import Artefact, Backend
    from edgekd.devices._protocol import Job
    from edgekd.devices.diagnostic import null_job

    if name == "spin":
        (folder / "a").mkdir(exist_ok=True)
        (folder / "b").mkdir(exist_ok=True)
        return null_job(folder / "a", "spin=210"), null_job(folder / "b", "spin=200")
    plain = model(20, folder)
    if name.endswith("same"):
        copy = folder / "copy.tflite"
        copy.write_bytes(
            plain.read_bytes() + bytes(16)
        )  # read by nobody: a bench takes files of one digest for one job
        first, other = Artefact.of(copy), Artefact.of(plain)
    else:
        first, other = Artefact.of(model(21, folder)), Artefact.of(plain)
    backend = Backend.model_validate(BACKEND)
    return Job(artefact=first, backend=backend), Job(artefact=other, backend=backend)


def compared(session: Any, jobs: tuple[Any, Any], plan: Any) -> dict[str, Any]:
    """One bench of two models, decided as `edgekd bench` decides."""
    from edgekd.measure.benches.bench import measure_for_ranking, undecided_pairs
    from edgekd.measure.compare import aa_noise, compare
    from edgekd.measure.quality import assess

    measured = measure_for_ranking(session, jobs, plan)
    first, other = measured[0], measured[1]
    noise = aa_noise(measured)
    comparison = compare(first, other, noise)
    return {
        "ratio": round(comparison.ratio, 5),
        "low": round(comparison.low, 5),
        "high": round(comparison.high, 5),
        "noise": round(noise, 5),
        "claims": comparison.distinguishable,
        "unstable": bool(undecided_pairs(measured[:-1], noise)) or assess(measured, 2).unstable,
        "processes": len(first.processes),
    }


@contextmanager
def busy_core(wanted: bool) -> Iterator[None]:
    """Somebody else's work on one core, for as long as this lasts."""
    if not wanted:
        yield
        return
    process = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _spin() -> None:
    while True:
        pass


def cell(options: argparse.Namespace, name: str, number: int, runs: Path) -> Mapping[str, Any]:
    """Ten comparisons."""
    from edgekd.devices._protocol import MeasurePlan

    chosen, kind = settings(options), name.removeprefix("busy-")
    jobs = jobs_of(kind, runs)
    session, found = opened(), []
    try:
        with busy_core(name.startswith("busy-")):
            for each in range(2 if options.tiny else A_CELL):
                seed = options.seed + 1000 * number + each
                plan = MeasurePlan(processes=5, rounds=chosen["rounds"], round_ms=chosen["round_ms"], seed=seed)
                found.append(patiently(lambda plan=plan: compared(session, jobs, plan)))
    finally:
        session.close()
    return {"comparisons": found}


def printed(cells: Cells) -> str:
    """How often a difference was claimed, and how often it was so."""
    rows = []
    for name in COUNTS:
        found = [
            each
            for title, cell in cells.all().items()
            if title.rpartition("-")[0] == name
            for each in cell["comparisons"]
        ]
        if not found:
            continue
        really = name.removeprefix("busy-") != "same"
        claimed = [each for each in found if each["claims"]]
        right = [each for each in claimed if really and each["ratio"] > 1]
        counted = len(right) if really else len(claimed)
        ends = binomtest(counted, len(found)).proportion_ci(0.95)
        rows.append(
            [
                name,
                len(found),
                len(right),
                len(claimed) - len(right),
                sum(not each["claims"] and each["unstable"] for each in found),
                f"{100 * ends.low:.0f}..{100 * ends.high:.0f} %",
            ]
        )
    note = "95 % of: found where there is one, claimed where there is none"
    return table(["kind", "comparisons", "found", "wrong", "unstable", "95 %"], rows, note)


def main() -> None:
    """Make what is missing, print the table."""
    parser = arguments(__doc__, NAME)
    parser.add_argument("--only", choices=tuple(COUNTS))
    options = parser.parse_args()
    results, runs = folders(options, NAME)
    cells = Cells(NAME, results, settings(options))
    make: Callable[..., Any] = cell
    for name in () if options.table else ((options.only,) if options.only else tuple(COUNTS)):
        for number in range(1 if options.tiny else COUNTS[name] // A_CELL):
            cells.cell(f"{name}-{number:02d}", lambda name=name, number=number: make(options, name, number, runs))
    print(printed(cells))


if __name__ == "__main__":
    main()
