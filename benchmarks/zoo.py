"""What edgekd does with models that nobody tuned for: 36 small networks with random weights, and the page of support.

Each model is tried as one's own (taken by the family `pruned`, its dependency groups, as a teacher) and exported to
ONNX, TFLite and OpenVINO in float32, dynamic int8 and static int8; files run here and are compared with the model. A
cell is one model and one part (`own`, `onnx`, `tflite`, `openvino`), made in a process of its own with a deadline, so
that a crash or a hang is a result. A column of a cell is figures or a reason with what to do about it.

Run: python benchmarks/zoo.py [--jobs 2] [--only NAME,NAME] [--again]; about an hour on two cores, TFLite's conversions
most of it. --check fails on any traceback, crash or hang, and on a reason without a remedy. --page writes
docs/support.md from the cells.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from cells import ROOT, Cells, arguments, folders
from zoo_models.catalogue import COLUMNS, FORMATS, ZOO, Animal

NAME = "zoo"
PAGE = ROOT / "docs" / "support.md"
SETTINGS = {"samples": 48, "calibration": 96, "seed": 0}
DEADLINE_S = 900.0
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["zoo_cell", "torch_pruning", "torch.onnx", "onnxscript", "transformers.modeling_utils"])


def make(animal: Animal, part: str, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
    """One cell's columns. What the process left undone says how it ended."""
    with tempfile.TemporaryDirectory() as scratch:
        results, log = Path(scratch) / "columns.jsonl", Path(scratch) / "log"
        process = _SERVER.Process(target=_in_process, args=(animal.name, part, results, Path(scratch), log))
        process.start()
        process.join(deadline_s)
        code = process.exitcode
        if code is None:
            process.kill()
            process.join()
        lines = results.read_text().splitlines() if results.is_file() else []
        columns = {name: column for line in lines for name, column in json.loads(line).items()}
        missing = [column for column in COLUMNS[part] if column not in columns]
        if missing:
            columns |= {column: {"reason": "not reached", "do": f"see {missing[0]}"} for column in missing}
            columns[missing[0]] = _ended(code, deadline_s, log.read_text(errors="replace") if log.is_file() else "")
        return {"columns": columns}


def _in_process(*about: Any) -> None:
    from zoo_cell import make_cell

    make_cell(*about)


def _ended(code: int | None, deadline_s: float, log: str) -> dict[str, str]:
    if code is None:
        return {"hang": f"no answer within {deadline_s:g} s"}
    how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    return {"crash": f"the process died: {how}", "log": log[-1500:]}


class Reason(NamedTuple):
    """Why a column has no figures, without the names of layers; ``do`` is what helps."""

    text: str
    do: str


def reason_of(column: Mapping[str, Any]) -> Reason | None:
    """None where there are figures."""
    for kind in ("traceback", "crash", "hang"):
        if kind in column:
            return Reason(str(column[kind]).strip().splitlines()[-1], "report it: this is a bug of edgekd")
    if "reason" not in column:
        return None
    text = re.sub(r"`[^`]*`", "`…`", column["reason"].splitlines()[0])
    text = re.sub(r"\b\d+(\.\d+)?(e[+-]?\d+)?", "N", text)
    text = re.sub(r" *\b(on|in) \w+/\w+", "", text).replace("  ", " ")
    return Reason(text, column["do"].splitlines()[0])


def faults(cells: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What must not be: cells that are missing, tracebacks, crashes, hangs, and reasons that leave a person alone."""
    found = []
    for animal in ZOO:
        for part, columns in COLUMNS.items():
            cell = cells.get(f"{animal.name}-{part}")
            if cell is None:
                found.append(f"{animal.name}-{part}: no cell")
                continue
            for column in columns:
                one = cell["columns"][column]
                kind = next((kind for kind in ("traceback", "crash", "hang") if kind in one), "")
                if kind:
                    found.append(f"{animal.name}-{part} {column}: {kind}: {str(one[kind]).strip().splitlines()[-1]}")
                elif "reason" in one and not one["do"]:
                    found.append(f"{animal.name}-{part} {column}: no remedy: {one['reason']}")
    return found


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


_MISSING = {"reason": "not tried", "do": "run `python benchmarks/zoo.py`"}


class Page:
    """docs/support.md. Reasons get numbers in the order in which they are first met."""

    def __init__(self, cells: Mapping[str, Mapping[str, Any]]) -> None:
        self.cells = cells
        self.numbers: dict[Reason, int] = {}
        self.counts: Counter[Reason] = Counter()
        self.examples: dict[Reason, list[str]] = {}

    def column(self, animal: Animal, part: str, column: str) -> Mapping[str, Any]:
        """One column of one cell."""
        cell = self.cells.get(f"{animal.name}-{part}")
        found: Mapping[str, Any] = cell["columns"][column] if cell else _MISSING
        return found

    def text(self, animal: Animal, part: str, column: str, words: Callable[[Mapping[str, Any]], str]) -> str:
        """Figures in words, or the number of the reason."""
        one = self.column(animal, part, column)
        if one is _MISSING:
            return "not tried"
        reason = reason_of(one)
        if reason is None:
            return words(one)
        number = self.numbers.setdefault(reason, len(self.numbers) + 1)
        self.counts[reason] += 1
        named = re.findall(r"`([^`]*)`", one.get("reason", ""))
        where = f"{animal.title} (`{named[0]}`)" if named else animal.title
        examples = self.examples.setdefault(reason, [])
        if where not in examples:
            examples.append(where)
        return f"[{number}](#reasons)"

    def headline(self, animal: Animal) -> list[Mapping[str, Any]]:
        """What decides whether it is taken as one's own, and exact in float32 in all three formats."""
        wanted = [("own", "taken"), *((part, "float32") for part in FORMATS)]
        return [self.column(animal, part, column) for part, column in wanted]

    def exact(self) -> int:
        """How many models are."""
        return sum(
            all(one is not _MISSING and reason_of(one) is None for one in self.headline(animal)) for animal in ZOO
        )

    def lines(self) -> Iterator[str]:
        """The page."""
        yield "# What works with which model"
        yield ""
        columns = [self.headline(animal) for animal in ZOO]
        failed = [any(one is not _MISSING and reason_of(one) for one in row) for row in columns]
        untried = sum(_MISSING in row and not fails for row, fails in zip(columns, failed, strict=True))
        exact = self.exact()
        later = f", and {untried} were not tried in all formats yet" if untried else ""
        yield (
            f"Made by `benchmarks/zoo.py` from the cells in `benchmarks/results/zoo`: {len(ZOO)} small models with "
            "random weights, for which edgekd was not tuned. "
            f"**Of {len(ZOO) - untried} that were tried, {exact} are taken as one's own and exact in float32 in all "
            f"three formats; {sum(failed)} {'fails' if sum(failed) == 1 else 'fail'} in at least one of these{later}.**"
        )
        yield "A number in brackets is a reason: they are listed, counted, at the end."
        processors = Counter(cell["machine"]["cpu"] for cell in self.cells.values())
        counted = ", ".join(f"{count} on {cpu}" for cpu, count in processors.most_common())
        yield f"No figure is a time. Cells were made on these processors: {counted}."
        yield ""
        yield "## As one's own, and in float32"
        yield ""
        yield (
            "*Taken*: archs that the family [`pruned`](own-model.md) makes of it. *Groups*: dependency groups whose "
            "channels can be pruned, of all. *Teacher*: points at which a loss can look into it. The formats: largest "
            "difference between file and model, relative to the largest answer."
        )
        yield ""
        yield from self._table(
            ("model", "taken", "groups", "teacher", *FORMATS.values()),
            lambda animal: [
                self.text(animal, "own", "taken", lambda one: _many(one["archs"], "arch")),
                self.text(animal, "own", "groups", lambda one: f"{one['prunable']} of {one['groups']}"),
                self.text(animal, "own", "teacher", lambda one: _many(one["points"], "point")),
                *(self.text(animal, part, "float32", lambda one: f"{one['difference']:.0e}") for part in FORMATS),
            ],
        )
        for column, title, what in (
            ("dynamic-int8", "Dynamic int8", "weights in 8 bits; LiteRT quantizes activations at run time"),
            ("int8", "Static int8", "weights and activations in 8 bits, calibrated on 96 samples"),
        ):
            yield f"## {title}"
            yield ""
            yield (
                f"{what[0].upper()}{what[1:]}. Share of answers that agree with the float model's (of segmentation: of "
                "pixels; of numbers: 1 less the relative error), and the file's size beside float32's. Weights are "
                "random, so classes lie closer together than a trained model's."
            )
            yield ""
            yield from self._table(
                ("model", *FORMATS.values()),
                lambda animal, column=column: [  # type: ignore[misc]
                    self.text(animal, part, column, lambda one, part=part: self._agreement(animal, part, one))  # type: ignore[misc]
                    for part in FORMATS
                ],
            )
        yield from self._faithful()
        yield "## What `edgekd predict` reads"
        yield ""
        yield "Kernels of the float32 file that are of a sort which latency tables know, of all."
        yield ""
        yield from self._table(
            ("model", *FORMATS.values()),
            lambda animal: [
                self.text(animal, part, "predict", lambda one: f"{one['known']} of {one['kernels']}")
                for part in FORMATS
            ],
        )
        yield from self._reasons()

    def _faithful(self) -> Iterator[str]:
        """Static int8 files beside the integer reference, and what computes in float."""
        files = [self.column(animal, part, "int8") for animal in ZOO for part in FORMATS]
        shares = [one["reference"] for one in files if "counted" in one]
        yield "## Static int8, as encoded"
        yield ""
        yield (
            "Share of answers of a static int8 file that agree with edgekd's integer reference, which computes what "
            "the encodings say, on 192 samples, and the operators that compute in float, counted. "
            f"**{sum(share >= 0.99 for share in shares)} of {len(shares)} files agree in at least 99 %.** "
            "Where classes are close together, as with random weights, one rounding of a runtime decides."
        )
        yield ""
        yield from self._table(
            ("model", *FORMATS.values(), "in float"),
            lambda animal: [
                *(self._reference(self.column(animal, part, "int8")) for part in FORMATS),
                self._in_float(animal),
            ],
        )

    @staticmethod
    def _reference(one: Mapping[str, Any]) -> str:
        return f"{one['reference']:.1%}" if "counted" in one else "-"

    def _in_float(self, animal: Animal) -> str:
        """Operators that compute in float; by format, where they are not the same."""
        found = {FORMATS[part]: self.column(animal, part, "int8").get("in_float") for part in FORMATS}
        known = {name: operators or "none" for name, operators in found.items() if operators is not None}
        if len(set(known.values())) <= 1:
            return next(iter(known.values()), "")
        return "; ".join(f"{name}: {operators}" for name, operators in known.items())

    def _agreement(self, animal: Animal, part: str, one: Mapping[str, Any]) -> str:
        whole = self.column(animal, part, "float32")
        size = f", {one['bytes'] / whole['bytes']:.2f}x" if "bytes" in whole else ""
        return f"{one['agreement']:.0%}{size}"

    def _table(self, head: Sequence[str], row: Callable[[Animal], Sequence[str]]) -> Iterator[str]:
        yield f"| {' | '.join(head)} |"
        yield f"|{'---|' * len(head)}"
        for animal in ZOO:
            yield f"| {' | '.join([animal.title, *row(animal)])} |"
        yield ""

    def _reasons(self) -> Iterator[str]:
        yield "## Reasons"
        yield ""
        yield "| | cells | reason | what to do | first met in |"
        yield "|---|---|---|---|---|"
        for reason, number in sorted(self.numbers.items(), key=lambda entry: entry[1]):
            text, do = (words.replace("|", "\\|") for words in reason)
            shown = self.examples[reason]
            more = f" and {len(shown) - 2} more" if len(shown) > 2 else ""
            yield f"| {number} | {self.counts[reason]} | {text} | {do} | {', '.join(shown[:2])}{more} |"
        yield ""
        yield f"{sum(self.counts.values())} cells have a reason, {len(self.counts)} different ones."


def page(cells: Mapping[str, Mapping[str, Any]]) -> str:
    """docs/support.md as the cells give it."""
    return "\n".join(Page(cells).lines()) + "\n"


def main() -> None:
    """Make the cells that are missing, or look at those that are there."""
    parser = arguments(__doc__, NAME)
    parser.add_argument("--jobs", type=int, default=1, help="cells made at the same time")
    parser.add_argument("--only", default="", help="models, or cells, to make: comma between them")
    parser.add_argument("--again", action="store_true", help="make cells that are there already once more")
    parser.add_argument("--check", action="store_true", help="fail on tracebacks, crashes, hangs and missing cells")
    parser.add_argument("--page", action="store_true", help="write docs/support.md")
    options = parser.parse_args()
    os.environ |= {
        "PYTHONPATH": str(ROOT / "benchmarks"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    results, _ = folders(options, NAME)
    cells = Cells(NAME, results, SETTINGS)
    if not (options.table or options.check or options.page):
        work(cells, options)
    if options.table:
        print(page(cells.all()), end="")
    if options.page:
        PAGE.write_text(page(cells.all()))
    if options.check:
        found = faults(cells.all())
        print("\n".join(found) or "no faults")
        sys.exit(bool(found))


def work(cells: Cells, options: argparse.Namespace) -> None:
    """Make cells, some at a time."""
    wanted = [name for name in options.only.split(",") if name]
    chosen = ZOO[:2] if options.tiny else ZOO
    jobs = [
        (animal, part)
        for part in COLUMNS
        for animal in chosen
        if not wanted or animal.name in wanted or f"{animal.name}-{part}" in wanted or part in wanted
    ]

    def one(job: tuple[Animal, str]) -> None:
        animal, part = job
        name = f"{animal.name}-{part}"
        if options.again:
            (cells.folder / f"{name}.json").unlink(missing_ok=True)
        begun = time.monotonic()
        cell = cells.cell(name, lambda: make(animal, part))
        states = [f"{column}={'-' if reason_of(one) else 'ok'}" for column, one in cell["columns"].items()]
        print(f"{name} {time.monotonic() - begun:.0f} s: {' '.join(states)}", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(one, jobs))


if __name__ == "__main__":
    main()
