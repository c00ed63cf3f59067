"""CIFAR-10 on this computer's CPU: a searched student beside the int8 ResNet-8 of MLPerf Tiny, which is the budget.

The target is written from what is measured: LiteRT, one thread, p50 <= the reference's p50 and no more bytes than its
file. Cells: `reference` (measured, and scored on all test images); `plan` (how fast this machine trains, and so how
many epochs fit); `search` (one `edgekd search`, certified); `same_topology` (the reference's own architecture,
distilled with the same recipe and epochs); `scale` and `scaled` (ResNet-20 narrowed evenly until it fits the latency
and the bytes, or the bytes alone where no width fits the latency, then the same again); `comparison` (all files side
by side in one batch; McNemar's exact test on the same images). Each trained student's file is kept beside its cells,
and `NAME_answers` says which images it gets right.

How the 75 minutes are spent, and why (120 are allowed)
  - Training is the scarce part, and `plan` measures it: images a second of a student, and answers a second of the
    teacher. The winner's training gets 26 minutes (about 100 epochs where the CPU has bfloat16), the teacher's
    answers 8 at most. A small network that sees a few views of every image does not overfit them, so a view more is
    worth less than three epochs more, and the bound on views is the lower one.
  - What is left, about 35 minutes, is the search. The filters and the latency budget leave a small part of the space,
    and an arch that is over budget costs seconds (it is measured, not trained). An arch that fits is trained for 3
    epochs with its own full cosine, about 40 seconds. One epoch ranks badly, six leave too few archs.
  - One finalist. A second would halve the winner's training, which costs more accuracy than choosing between two
    archs that differ by less than the validation split can tell.
  - Space: written stage by stage. Probes of untrained files showed where the time goes: at 32 x 32 pixels a block
    costs a quarter of the budget, at 8 x 8 a twentieth. So the first stage is narrow and shallow (8 or 16 channels),
    and depth may grow where it is cheap. Widths go in steps of 8: the kernels compute whole vectors anyway.
  - Recipe: batch 128, SGD with Nesterov momentum, 0.1 down a cosine to zero after one epoch of warm-up, weight decay
    5e-4, running average of weights, crop 4 and flip. Temperature 4 and weight 0.9, no label smoothing: the teacher is
    right on nearly all training images and very sure, so its answers tell more than labels only when softened, and a
    network this small underfits, so nothing is gained from smoothing on top. Trained in what the probe finds fastest
    (bfloat16 where the CPU has it, float32 else).
  - 8 % of the training images validate (4,000 of them): two archs trained alike are told apart from about 1.2 points.
  - int8 in and out, as the reference. The space is searched at int8 alone: by bytes a float file would have to be four
    times smaller, and int8 is three times faster on a CPU with an 8-bit dot product. Without one it may not be.

Run: EDGEKD_DATA=... python benchmarks/cifar_search.py [--only search] [--table]. About two hours and a half on two idle
cores (search 75 minutes, the other two trainings about 30 each); --tiny takes about five minutes and proves nothing.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cells import ROOT, Cells, arguments, cifar10, data_folder, edgekd, folders, opened, patiently, table, write_yaml
from scipy.stats import binomtest

from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import Job, MeasurePlan, Outcome
from edgekd.ir.numerics import Precision
from edgekd.measure.figures import figure_of, figures_of
from edgekd.tasks._protocol import InputSpec

NAME = "cifar_search"
BACKEND = Backend(runtime="litert", provider="xnnpack")
EXPORT = {"input": "int8", "output": "int8", "layout": "nhwc", "preprocess": "fold"}
RESNET8 = {"widths": [16, 32, 64], "depths": [1, 1, 1]}
SPACE = {"widths": [[8, 16], [16, 48], [32, 64]], "depths": [[1, 2], [1, 3], [1, 3]]}
SCALES = (2, 3, 4, 5, 6, 7, 8)  # channels of ResNet-20's first stage; the others have twice and four times as many
TRAINED = ("search", "same_topology", "scaled")
WORDS = {
    "reference": "MLPerf Tiny ResNet-8",
    "search": "edgekd search",
    "same_topology": "ResNet-8, distilled",
    "scaled": "ResNet-20, narrowed",
}
SHORT_EPOCHS = 3
TRAIN_S, VIEWS_S, SEARCH_MINUTES = 26 * 60, 8 * 60, 75


def reference_file() -> Path:
    """The budget: 98,496 bytes."""
    return data_folder() / "mlperf-tiny" / "ic_resnet8_int8.tflite"


def task(tiny: bool) -> dict[str, Any]:
    """The task section of every project here."""
    shared = {"kind": "image-classification", "data": str(cifar10(tiny)), "flip": True}
    return {**shared, "validation": 0.2, "calibration": 64} if tiny else {**shared, "validation": 0.08}


def teacher() -> dict[str, Any]:
    """ResNet-56, 93.39 % on the test images."""
    return {
        "kind": "torch",
        "module": f"{ROOT / 'examples' / 'cifar_resnet.py'}:resnet56",
        "weights": str(data_folder() / "cifar-resnets" / "resnet56.npz"),
        "mean": [255 * 0.485, 255 * 0.456, 255 * 0.406],
        "std": [255 * 0.229, 255 * 0.224, 255 * 0.225],
    }


def recipe(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """The one recipe of all three students."""
    distill = {
        "loss": {"kd": {"temperature": 4, "weight": 0.9}},
        "epochs": plan["epochs"],
        "views": plan["views"],
        "batch_size": 128,
        "learning_rate": 0.1,
        "weight_decay": 5e-4,
        "augment": {"crop": 4},
    }
    return [{"distill": distill}, {"quantize": {"precision": "int8", "samples": 64 if plan["epochs"] < 4 else 512}}]


def target(reference: dict[str, Any], folder: Path, report: bool) -> None:
    """The reference's own figures as budgets; with ``report`` they are looked at and don't bind."""
    budgets: dict[str, Any] = {
        "latency": {"p50": f"{reference['p50_us']:.3f} us"},
        "size": {"file": f"{reference['size_bytes']} B"},
    }
    for budget in budgets.values():
        budget["report"] = report
    content = {
        "schema": "edgekd.target/1",
        "device": "this-computer",
        "backends": [str(BACKEND)],
        "threads": 1,
        "budgets": budgets,
        "fully_integer": True,
    }
    write_yaml(folder / "as-the-reference.yaml", content)


def measure_reference(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The budget in figures, and its answers on the whole test set."""
    artefact, test = Artefact.of(reference_file()), test_split(options.tiny)
    job, inputs = Job(artefact=artefact, backend=BACKEND), folder / "inputs.npy"
    pixels = (test.inputs.transpose(0, 2, 3, 1).astype(np.int16) - 128).astype(np.int8)
    np.save(inputs, np.ascontiguousarray(pixels))
    session = opened()
    try:
        (measurement,) = session.measure([job], MeasurePlan(processes=3 if options.tiny else 10, seed=options.seed))
        answered = session.run(job, [inputs])
        if answered.outcome is not Outcome.OK:
            raise SystemExit(f"{artefact.path.name}: {answered.outcome.value} {answered.detail}")
        answers = np.load(answered.outputs[0]).reshape(len(test), -1)
    finally:
        session.close()
        inputs.unlink()
    figures = {figure.metric: figure for figure in figures_of(measurement, size_bytes=artefact.size_bytes)}
    correct = np.argmax(answers, axis=1) == test.labels
    return {
        "model": artefact.path.name,
        "p50_us": figures["latency.p50"].value,
        "size_bytes": artefact.size_bytes,
        "accuracy": float(correct.mean()),
        "correct": packed(correct),
        "measurement": measurement.model_dump(mode="json"),
    }


def measure_plan(options: argparse.Namespace) -> dict[str, Any]:
    """Images a second, for some archs and for the teacher, and what fits into the minutes set apart for each."""
    import torch

    from edgekd.distill.autotune import laid_out, probe
    from edgekd.ir.space import Arch
    from edgekd.students.resnet import ResNet
    from edgekd.tasks.images.classification import ImageClassification
    from edgekd.teachers.torch import TorchTeacher

    described = ImageClassification.model_validate(without(task(options.tiny), "kind"))
    count, cpu = len(described.split("train")), torch.device("cpu")
    rounds, images = (2, 128) if options.tiny else (12, 128)
    inputs, labels = torch.randn(images, 3, 32, 32), torch.randint(0, 10, (images,))
    rates: dict[str, dict[str, float]] = {}
    for words, widths, depths in (
        ("16-32-64 x 1-1-1", (16, 32, 64), (1, 1, 1)),
        ("8-32-40 x 1-1-2", (8, 32, 40), (1, 1, 2)),
        ("4-8-16 x 3-3-3", (4, 8, 16), (3, 3, 3)),
    ):
        arch = Arch.of({f"{n}{s + 1}": v[s] for n, v in (("width", widths), ("depth", depths)) for s in range(3)})
        module = ResNet().build(arch, described.spec)
        chosen = probe(module, InputSpec(shape=(3, 32, 32)), images, cpu)
        rates[words] = {"chosen": 0.0}
        for precision in ("float32", "bfloat16"):
            trained = laid_out(ResNet().build(arch, described.spec).train(), cpu, chosen.memory_format)
            optimizer = torch.optim.SGD(trained.parameters(), lr=0.01, momentum=0.9, fused=True)
            seen, best = inputs.contiguous(memory_format=chosen.memory_format), float("inf")
            for _ in range(rounds):
                begun = time.perf_counter()
                with torch.autocast("cpu", torch.bfloat16, precision == "bfloat16"):
                    answers = trained(seen)
                torch.nn.functional.cross_entropy(answers.float(), labels).backward()
                optimizer.step()
                optimizer.zero_grad()
                best = min(best, time.perf_counter() - begun)
            rates[words][precision] = images / best
        rates[words]["chosen"] = rates[words][chosen.precision]
    asked = TorchTeacher.model_validate(without(teacher(), "kind"))
    raw, best = torch.from_numpy(np.array(described.split("train").inputs[:256])).float(), float("inf")
    for _ in range(2 if options.tiny else 5):
        begun = time.perf_counter()
        asked.logits(raw)
        best = min(best, time.perf_counter() - begun)
    answers_per_s = len(raw) / best
    # augmentation, the running average and validation take about a tenth of an epoch beside the bare step
    epochs = 2 if options.tiny else bounded(0.9 * TRAIN_S * rates["16-32-64 x 1-1-1"]["chosen"] / count, 30, 120)
    views = 1 if options.tiny else bounded(VIEWS_S * answers_per_s / count, 2, 8)
    return {
        "train_images": count,
        "images_per_s": rates,
        "teacher_images_per_s": answers_per_s,
        "epochs": epochs,
        "views": views,
        "short_epochs": 1 if options.tiny else SHORT_EPOCHS,
    }


def search(
    options: argparse.Namespace, reference: dict[str, Any], plan: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """One `edgekd search`, from nothing to a certificate."""
    target(reference, folder, report=options.tiny)  # two epochs' worth of trials find nothing that binds
    content = {
        **project(options.tiny, plan, SPACE),
        "search": {
            "budget": f"{SEARCH_MINUTES if options.minutes is None else options.minutes:g} min",
            "seed": options.seed,
            "finalists": 1,
            "reference_archs": 2,
            "batch": 2 if options.tiny else 4,
            "accuracy": {"short": {"epochs": plan["short_epochs"]}},
            **({"trials": 2} if options.tiny else {}),
        },
    }
    return ran("search", write_yaml(folder / "project.yaml", content), folder / "run")


def train(
    options: argparse.Namespace, reference: dict[str, Any], plan: dict[str, Any], space: Any, folder: Path
) -> Any:
    """One arch with the same recipe, exported alike."""
    target(reference, folder, report=True)
    content = {**project(options.tiny, plan, space), "search": {"seed": options.seed}}
    return ran("distill", write_yaml(folder / "project.yaml", content), folder / "run")


def project(tiny: bool, plan: dict[str, Any], space: Any) -> dict[str, Any]:
    """What all three projects have in common."""
    return {
        "schema": "edgekd.project/1",
        "task": task(tiny),
        "teacher": teacher(),
        "student": {"family": "resnet", "space": space},
        "target": "as-the-reference",
        "recipe": recipe(plan),
        "export": EXPORT,
    }


def ran(command: str, path: Path, run: Path) -> dict[str, Any]:
    """A command's outcome, with the training's own minutes."""
    from edgekd.store.run import Run

    code, answer = edgekd(command, path, "--run", run)
    opened_run = Run.open(run)
    finalists = opened_run.finalists()
    chosen = next((finalist for finalist in finalists if finalist.chosen), None)
    curve = chosen.curve if chosen is not None else ()
    images = opened_run.plan().refine_images if opened_run.plan() is not None else 0
    return {
        "exit_code": code,
        "run": str(run.relative_to(ROOT)) if run.is_relative_to(ROOT) else str(run),
        "outcome": answer["outcome"],
        "certificate": answer["certificate"],
        "candidate": str(chosen.candidate) if chosen is not None else None,
        "trials": len(opened_run.trials()),
        "trained_trials": sum(trial.accuracy is not None for trial in opened_run.trials()),
        "refine_images": images,
        "training_curve": [point.model_dump(mode="json") for point in curve],
        "command_s": answer["outcome"]["seconds"],
    }


def measure_scales(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """ResNet-20 at every even scale, untrained, beside the reference: the largest that fits it, or else its bytes."""
    from edgekd.export._protocol import ExportOptions
    from edgekd.export.converter import Converter
    from edgekd.ir.plan import Candidate, CompressionPlan
    from edgekd.search.trials.untrained import UntrainedBuilder
    from edgekd.students.resnet import ResNet
    from edgekd.tasks.images.classification import ImageClassification

    described = ImageClassification.model_validate(without(task(options.tiny), "kind"))
    session, rows = opened(), []
    try:
        with Converter(folder / "convert") as converter:
            jobs = {}
            for scale in SCALES[1:4] if options.tiny else SCALES:
                family = ResNet.model_validate({"space": resnet20(scale)})
                builder = UntrainedBuilder(
                    described, family, converter, ExportOptions.model_validate(EXPORT), session.describe(), options.seed
                )
                candidate = Candidate(
                    family="resnet",
                    arch=family.space(described.spec).at(0),
                    plan=CompressionPlan(precision=Precision.INT8),
                    backend=BACKEND,
                )
                made = builder.make(candidate, folder / f"scale-{scale}" / "model")
                if made.artefact is None:
                    raise SystemExit(f"ResNet-20 at scale {scale}: {made.outcome.value} {made.detail}")
                jobs[scale] = Job(artefact=made.artefact, backend=BACKEND)
        budget = Job(artefact=Artefact.of(reference_file()), backend=BACKEND)
        plan = MeasurePlan(processes=3 if options.tiny else 5, seed=options.seed)
        first, *others = session.measure([budget, *jobs.values()], plan)
        bound_us = figure_of(first, "latency.p50").value
        for scale, measurement in zip(jobs, others, strict=True):
            p50, size = figure_of(measurement, "latency.p50"), jobs[scale].artefact.size_bytes
            fits = p50.upper <= bound_us and size <= budget.artefact.size_bytes
            rows.append({"scale": scale, "p50_us": p50.value, "upper_us": p50.upper, "size_bytes": size, "fits": fits})
    finally:
        session.close()
    fitting = [row["scale"] for row in rows if row["fits"]]
    # where every one is slower than the reference, the most accurate opponent that its bytes allow
    small = [row["scale"] for row in rows if row["size_bytes"] <= budget.artefact.size_bytes]
    return {
        "reference": {"p50_us": bound_us, "size_bytes": budget.artefact.size_bytes},
        "scales": rows,
        "chosen": max(fitting or small),
        "fits": bool(fitting),
    }


def train_scaled(options: argparse.Namespace, cells: Cells, plan: dict[str, Any], runs: Path) -> dict[str, Any]:
    """The narrowed ResNet-20 of the `scale` cell, with its own figures of the reference: it may be another machine."""
    scale = cells.cell("scale", lambda: measure_scales(options, runs / "scale"))
    trained: dict[str, Any] = train(options, scale["reference"], plan, resnet20(scale["chosen"]), runs / "scaled")
    return trained


def resnet20(scale: int) -> dict[str, Any]:
    """Three blocks a stage; 16 is the full width."""
    return {"widths": [scale, 2 * scale, 4 * scale], "depths": [3, 3, 3]}


def compare_all(options: argparse.Namespace, cells: Cells, folder: Path) -> dict[str, Any]:
    """Every file in one interleaved batch, and the same test images answered by each."""
    from edgekd import api
    from edgekd.measure.compare import compare

    files, correct = {"reference": reference_file()}, {"reference": unpacked(cells.get("reference"))}
    for name in TRAINED:
        answered = cells.get(f"{name}_answers")
        if answered is not None:
            files[name], correct[name] = cells.folder / answered["file"], unpacked(answered)
            if Artefact.of(files[name]).sha256 != answered["sha256"]:
                raise SystemExit(f"{files[name]} is not the file that answered")
    plan = MeasurePlan(processes=3 if options.tiny else 10, profile=True, seed=options.seed + 1)
    shown = {name: shutil.copyfile(path, folder / f"file_{name}.tflite") for name, path in files.items()}
    report = patiently(lambda: api.bench(list(shown.values()), backends=[str(BACKEND)], plan=plan))
    rows = {row.model.removeprefix("file_").removesuffix(".tflite"): row for row in report.rows}
    noise, first = report.quality.noise, rows["reference"].measurement
    return {
        "bench": report.model_dump(mode="json"),
        "against_reference": {
            name: compare(row.measurement, first, noise).model_dump(mode="json")
            for name, row in rows.items()
            if name != "reference"
        },
        "accuracy": {name: float(right.mean()) for name, right in correct.items()},
        "correct": {name: packed(right) for name, right in correct.items()},
        "mcnemar": {
            f"{a} / {b}": mcnemar(correct[a], correct[b])
            for a, b in (("search", "same_topology"), ("search", "scaled"), ("search", "reference"))
            if a in correct and b in correct
        },
    }


def answers_of(name: str, options: argparse.Namespace, cell: dict[str, Any], keep: Path) -> dict[str, Any]:
    """Which test images a run's file gets right, in its runtime. The file is kept: runs don't outlive their machine."""
    from edgekd.bundle.verify import read_bundle
    from edgekd.export._protocol import ExportOptions
    from edgekd.export.score import score_artefact
    from edgekd.store.run import Run
    from edgekd.students.student import load_student
    from edgekd.tasks.images.classification import ImageClassification

    run = Run.open(ROOT / cell["run"])
    certificate, _ = read_bundle(run.folder / "bundle")
    shutil.copyfile(run.folder / "bundle" / certificate.model, keep)
    student = load_student(run.students / next(f for f in run.finalists() if f.chosen).student)
    described = ImageClassification.model_validate(without(task(options.tiny), "kind"))
    session = opened()
    try:
        score = score_artefact(
            session,
            Job(artefact=Artefact.of(keep), backend=certificate.backend),
            student,
            described,
            "test",
            ExportOptions.model_validate(certificate.export),
            ROOT / cell["run"] / "scratch" / "answers",
        )
    finally:
        session.close()
    if score.value != certificate.accuracy.value:
        raise SystemExit(f"{name}: its certificate says {certificate.accuracy.value:.4f}, found {score.value:.4f}")
    return {
        "file": keep.name,
        "sha256": Artefact.of(keep).sha256,
        "accuracy": score.value,
        "correct": packed(np.array(score.correct)),
    }


def mcnemar(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """Two-sided exact binomial test on the images that one of both gets wrong (McNemar 1947)."""
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    p = float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
    return {"only_first": only_a, "only_second": only_b, "samples": len(a), "p": p}


def test_split(tiny: bool) -> Any:
    """All test images."""
    from edgekd.tasks.images.classification import ImageClassification

    return ImageClassification.model_validate(without(task(tiny), "kind")).split("test")


def packed(correct: np.ndarray) -> str:
    """One bit an image, as hexadecimal digits."""
    return np.packbits(correct).tobytes().hex()


def unpacked(cell: dict[str, Any] | None) -> np.ndarray:
    """The inverse, for a finished cell."""
    if cell is None:
        raise SystemExit("the reference is not measured yet")
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(cell["correct"]), np.uint8))
    count = len(test_split(bool(cell["settings"]["tiny"])))
    return bits[:count].astype(bool)


def bounded(value: float, low: int, high: int) -> int:
    """Rounded down, and kept in bounds."""
    return int(min(high, max(low, value)))


def without(options: dict[str, Any], key: str) -> dict[str, Any]:
    """All but one."""
    return {name: value for name, value in options.items() if name != key}


def printed(cells: Cells) -> str:
    """What is known so far."""
    found = cells.all()
    compared = found.get("comparison")
    beside_us = {} if compared is None else {row["model"]: _p50_us(row["figures"]) for row in compared["bench"]["rows"]}
    rows = []
    for name in ("reference", *TRAINED):
        cell = found.get(name)
        if cell is None:
            continue
        if name == "reference":
            accuracy, size, p50, minutes = cell["accuracy"], cell["size_bytes"], f"{cell['p50_us']:.1f}", "-"
        elif cell["certificate"] is None:
            rows.append((WORDS[name], "-", "-", f"exit {cell['exit_code']}", "", f"{cell['seconds'] / 60:.0f}"))
            continue
        else:
            figures = {figure["metric"]: figure for figure in cell["certificate"]["figures"]}
            accuracy, size = cell["certificate"]["accuracy"]["value"], int(figures["size.file"]["value"])
            p50, minutes = f"{figures['latency.p50']['value']:.1f}", f"{cell['command_s'] / 60:.0f}"
        beside = ""
        if compared is not None and name in compared["against_reference"]:
            beside = f"{compared['against_reference'][name]['ratio']:.3f}"
        if f"file_{name}.tflite" in beside_us:
            p50 = f"{beside_us[f'file_{name}.tflite']:.1f}"
        rows.append((WORDS[name], f"{accuracy:.2%}", f"{size:,}", p50, beside, minutes))
    notes = []
    for name in TRAINED:
        if found.get(name, {}).get("candidate"):
            notes.append(f"{WORDS[name]}: {found[name]['candidate']}")
    for pair, test in (compared or {"mcnemar": {}})["mcnemar"].items():
        a, b = pair.split(" / ")
        notes.append(
            f"{WORDS[a]} against {WORDS[b]}: {test['only_first']} : {test['only_second']}, p = {test['p']:.2g}"
        )
    if beside_us:
        notes.append("p50: all files in one batch on one machine; the students were trained and certified before")
    return table(("CIFAR-10", "test", "bytes", "p50 us", "ratio", "minutes"), rows, "\n".join(notes))


def _p50_us(figures: list[dict[str, Any]]) -> float:
    return next(float(figure["value"]) for figure in figures if figure["metric"] == "latency.p50")


def main() -> None:
    parser = arguments(__doc__, NAME)
    parser.add_argument("--minutes", type=float, help=f"of the search, in all (default: {SEARCH_MINUTES})")
    parser.add_argument(
        "--only", choices=(*TRAINED, "comparison"), action="append", help="this cell, and what it needs"
    )
    options = parser.parse_args()
    results, runs = folders(options, NAME)
    settings = {"tiny": options.tiny, "seed": options.seed, "minutes": options.minutes or SEARCH_MINUTES}
    cells = Cells(NAME, results, settings)
    if options.table:
        print(printed(cells))
        return
    wanted = options.only or [*TRAINED, "comparison"]
    reference = cells.cell("reference", lambda: measure_reference(options, runs))
    plan = cells.cell("plan", lambda: measure_plan(options))
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "search": lambda: search(options, reference, plan, runs / "search"),
        "same_topology": lambda: train(options, reference, plan, RESNET8, runs / "same_topology"),
        "scaled": lambda: train_scaled(options, cells, plan, runs),
        "comparison": lambda: compare_all(options, cells, runs),
    }
    for name, step in steps.items():
        if name in wanted:
            cell = cells.cell(name, step)
            if name in TRAINED and cell["certificate"] is not None:
                keep = cells.folder / f"{name}.tflite"
                cells.cell(f"{name}_answers", lambda n=name, c=cell, k=keep: answers_of(n, options, c, k))
    print(printed(cells))


if __name__ == "__main__":
    sys.exit(main())
