"""Ten models that one command each exports to static int8 in three formats, beside the tools of the runtimes' vendors.

    edgekd export MODEL --weights W --data D --precision int8 --max-drop 1% --output OUT

makes the ONNX, TFLite and OpenVINO file of a model of the zoo. Beside it `onnxruntime.quantization.quantize_static`,
`ai-edge-quantizer` and `nncf.quantize` quantize the same trained model, on the same 256 calibration images, as their
documents say to (export_vendor.py). All files take normalised float32 images, TFLite's with channels last. Where edgekd
writes no int8 file in a format, its reason is in the cell and its float32 file stands for it: what a person is left
with. What a vendor's tool can't do is recorded in its own words.

Figures of each file: agreement of its classes with the float model's in PyTorch on the test images, accuracy, bytes,
and the median latency on this computer, both files of a format measured in one interleaved batch. A difference counts
where it is beyond noise: of agreement and accuracy by McNemar's exact test at 5 %, of latency by the comparison of
`edgekd bench`. Seconds are those of the whole processes, imports with them.

Models are trained here first: CIFAR-10, 6,000 images brought to the model's size, a few epochs each (7 minutes in
all), kept under runs/. The other 1,512 images calibrate (256 of 512) and choose (1,000); 1,000 test images score.

`nncf` lives in an environment of its own:

    python -m venv runs/nncf && runs/nncf/bin/pip install nncf openvino==VERSION   # that of edgekd's environment

Run: EDGEKD_DATA=... python benchmarks/export_models.py [--nncf PYTHON] [--only NAME]. 22 minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import math
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import ROOT, Cells, arguments, cifar10, edgekd, folders, opened, table
from cifar_search import mcnemar
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from zoo_models.catalogue import BACKENDS, FORMATS, ZOO, Animal

from edgekd.agent.runtimes import open_runtime
from edgekd.agent.runtimes.base import Refusal
from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import DeviceSession, Job, MeasurePlan, Outcome
from edgekd.measure.compare import compare
from edgekd.measure.figures import figure_of

NAME = "export_models"
EPOCHS = {
    "resnet_basic": 14,
    "resnet_bottleneck": 14,
    "resnet_v2": 10,
    "mobilenet_v2": 8,
    "densenet": 6,
    "squeezenet": 20,
    "repvgg": 10,
    "mobilenet_v3": 16,
    "regnet": 14,
    "convnext": 24,
}
"""Models, and how long they learn: about a minute each. Of the last three some operators stay in float at int8."""
TINY = {"resnet_v2": 5, "mobilenet_v3": 12}
ZOO_FOLDER = Path(__file__).resolve().parent / "zoo_models"
TOOLS = {"onnx": "quantize_static", "tflite": "ai-edge-quantizer", "openvino": "nncf"}
CALIBRATION, CALIBRATING = 256, 512  # images that are used, of those set aside
MEAN, STD = 120.7, 64.1  # of CIFAR-10's pixels
PEAK_RATE, BATCH = 2e-3, 64
VENDOR_S = 600.0
Images = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Data:
    """CIFAR-10's images, uint8 (N, C, 32, 32), in four parts that share none."""

    train: tuple[Tensor, Tensor]
    rest: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    @classmethod
    def read(cls, tiny: bool) -> Data:
        """The first images of the file, which is in random order."""
        training, scoring = (1000, 400) if tiny else (6000, 1000)
        more = 500 if tiny else CALIBRATING + 1000
        with np.load(cifar10(tiny)) as arrays:
            x, y = arrays["x_train"][: training + more], arrays["y_train"][: training + more]
            tests = arrays["x_test"][:scoring], arrays["y_test"][:scoring]
        both = torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(y.astype(np.int64))
        return cls(
            train=(both[0][:training], both[1][:training]),
            rest=(both[0][training:], both[1][training:]),
            test=(torch.from_numpy(tests[0]).permute(0, 3, 1, 2), torch.from_numpy(tests[1].astype(np.int64))),
        )


def seen_by(animal: Animal, images: Tensor) -> Tensor:
    """Normalised float32, of the size that the model takes."""
    pixels = (images.float() - MEAN) / STD
    size = animal.inputs[0][1:]
    if tuple(pixels.shape[2:]) == size:
        return pixels
    return functional.interpolate(pixels, size, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Work:
    """One model: its files under ``folder``."""

    animal: Animal
    data: Data
    folder: Path
    epochs: int
    seed: int

    @property
    def weights(self) -> Path:
        return self.folder / "weights.safetensors"

    @property
    def images(self) -> Path:
        """What `--data` names."""
        return self.folder / "images.npz"

    @property
    def calibration(self) -> Path:
        """The images by which edgekd calibrates, for the other tools."""
        return self.folder / "calibration.npy"

    def built(self) -> nn.Module:
        module, _, function = self.animal.build.partition(":")
        torch.manual_seed(self.seed)
        model: nn.Module = getattr(importlib.import_module(f"zoo_models.{module}"), function)()
        return model

    @cached_property
    def classes(self) -> Images:
        """What the float model answers on the test images."""
        model = self.built()
        model.load_state_dict(load_file(self.weights))
        model.eval()
        with torch.no_grad():
            parts = [model(part).argmax(1) for part in seen_by(self.animal, self.data.test[0]).split(100)]
        return torch.cat(parts).numpy()

    @property
    def labels(self) -> Images:
        return self.data.test[1].numpy()


def train(work: Work) -> None:
    """AdamW with one cycle, flips and shifts; the weights are kept."""
    if work.weights.is_file():
        return
    model = work.built().train()
    images, labels = work.data.train
    steps = work.epochs * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), PEAK_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.2)
    random = torch.Generator().manual_seed(work.seed)
    for _ in range(work.epochs):
        order = torch.randperm(len(images), generator=random)
        for batch in order[: len(order) // BATCH * BATCH].split(BATCH):
            loss = functional.cross_entropy(model(seen_by(work.animal, _view(images[batch], random))), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    draft = work.weights.with_suffix(".draft")
    save_file(model.state_dict(), draft)
    draft.replace(work.weights)


def _view(images: Tensor, random: torch.Generator) -> Tensor:
    """Half of the images mirrored, all of them moved alike by up to four pixels."""
    down, right = (int(torch.randint(0, 9, (), generator=random)) for _ in range(2))
    height, width = images.shape[2:]
    moved = functional.pad(images, (4, 4, 4, 4))[:, :, down : down + height, right : right + width]
    mirrored = torch.rand(len(images), generator=random) < 0.5
    return torch.where(mirrored[:, None, None, None], moved.flip(3), moved)


def write_images(work: Work) -> None:
    """What is given to edgekd, and of it what edgekd calibrates by."""
    from edgekd.tasks.images.classification import ImageClassification
    from edgekd.tasks.splits import spread

    draft = work.folder / "draft.npz"
    parts = {"validation": work.data.rest, "test": work.data.test}
    arrays = {f"x_{name}": seen_by(work.animal, images).numpy() for name, (images, _) in parts.items()}
    np.savez(draft, **arrays, **{f"y_{name}": labels.numpy() for name, (_, labels) in parts.items()})
    draft.replace(work.images)
    split = ImageClassification(data=work.images, mean=(0.0,), std=(1.0,)).split("calibration")
    np.save(work.calibration, split.inputs[spread(len(split), CALIBRATION)])


def classes_by(file: Path, form: str, images: Images) -> Images:
    """What a file answers, in its runtime. Raises Refusal and what the runtime raises."""
    backend = Backend.model_validate(BACKENDS[form])
    runtime = open_runtime(backend.runtime, backend.provider, 1)
    runtime.load(str(file))
    inputs = images.transpose(0, 2, 3, 1) if form == "tflite" else images
    rows = []
    for image in inputs:
        runtime.prepare([np.ascontiguousarray(image[None])])
        runtime.call()
        rows.append(runtime.read()[0].argmax())
    return np.array(rows)


def ours(work: Work) -> dict[str, Any]:
    """The command, and a second one for the formats that it writes no int8 file of."""
    first = exported(work, work.folder / "int8", ["--precision", "int8", "--max-drop", "1%"])
    missing = [form for form in FORMATS if form not in first["written"]]
    second = None
    if missing:
        words = ["--precision", "float32", "--format", ",".join(missing)]
        second = exported(work, work.folder / "float32", words)
    return {"int8": first, "instead": second}


def exported(work: Work, folder: Path, words: Sequence[str]) -> dict[str, Any]:
    """One `edgekd export`, called as a person calls it."""
    shutil.rmtree(folder, ignore_errors=True)
    module, _, function = work.animal.build.partition(":")
    model = f"{(ZOO_FOLDER / module).with_suffix('.py').relative_to(ROOT)}:{function}"
    begun = time.monotonic()
    command: list[str | Path] = ["export", model, "--weights", work.weights, "--data", work.images, *words]
    code, answer = edgekd(*command, "--output", folder, taken=(0, 3, 5, 7))
    seconds = time.monotonic() - begun
    if "files" not in answer:
        raise SystemExit(f"edgekd export {model} ended with {code}: {answer.get('message')}")
    files = {row["format"]: row for row in answer["files"]}
    return {
        "command": " ".join(["edgekd", *(shown(word, work.folder) for word in [*command, "--output", folder])]),
        "exit_code": code,
        "seconds": round(seconds, 1),
        "accuracy": answer["accuracy"],
        "written": {form: row["bundle"] for form, row in files.items() if row["outcome"] == "written"},
        "reasons": {
            form: f"{row['outcome']}: {row['detail']}" for form, row in files.items() if row["outcome"] != "written"
        },
        "notes": answer["notes"],
    }


def shown(word: str | Path, folder: Path) -> str:
    """A path of this run without what lies before it."""
    return str(word.relative_to(folder)) if isinstance(word, Path) else word


def theirs(work: Work, form: str, nncf: Path) -> dict[str, Any]:
    """A vendor's tool in its processes: the file and the seconds, or its own reason."""
    folder = work.folder / "vendor"
    folder.mkdir(exist_ok=True)
    made = folder / f"model{Format(form).suffix}"
    made.unlink(missing_ok=True)
    steps = [(sys.executable, form), *([(str(nncf), "nncf")] if form == "openvino" else [])]
    begun = time.monotonic()
    for python, step in steps:
        line = [python, Path(__file__).with_name("export_vendor.py"), step, work.animal.build]
        try:
            done = subprocess.run(
                [*line, work.weights, work.calibration, folder],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=VENDOR_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"tool": TOOLS[form], "reason": f"{step}: no answer within {VENDOR_S:g} s"}
        if done.returncode:
            said = [text for text in done.stderr.splitlines() if text.strip()]
            last = said[-1] if said and done.returncode > 0 else f"ended by signal {-done.returncode}"
            return {"tool": TOOLS[form], "reason": f"{step}: {last.strip()[:400]}"}
    return {"tool": TOOLS[form], "seconds": round(time.monotonic() - begun, 1), "file": str(made)}


def scored(work: Work, form: str, file: Path, images: Images) -> dict[str, Any]:
    """A file's answers beside the float model's and the labels; ``classes`` are taken out before a cell is written."""
    try:
        classes = classes_by(file, form, images)
    except (Refusal, RuntimeError, ValueError, OSError) as error:
        return {"reason": f"{BACKENDS[form]} can't run it: {str(error).splitlines()[0]}"}
    return {
        "bytes": Artefact.of(file).size_bytes,
        "agreement": float((classes == work.classes).mean()),
        "accuracy": float((classes == work.labels).mean()),
        "classes": classes,
    }


def timed(session: DeviceSession, form: str, files: Sequence[Path], plan: MeasurePlan) -> dict[str, Any]:
    """Files of one format in one batch; of two what takes longer, and whether that is beyond noise."""
    jobs = [Job(artefact=Artefact.of(file), backend=Backend.model_validate(BACKENDS[form])) for file in files]
    measured = session.measure(jobs, plan)
    p50 = [
        figure_of(one, "latency.p50").model_dump(mode="json")
        if one.outcome is Outcome.OK
        else {"reason": f"{one.outcome.value}: {one.detail}"}
        for one in measured
    ]
    timed = len(measured) == 2 and all(one.outcome is Outcome.OK for one in measured)
    return {"p50": p50, "ratio": compare(*measured).model_dump(mode="json") if timed else None}


def make(work: Work, nncf: Path, plan: MeasurePlan) -> dict[str, Any]:
    """One model's cell."""
    begun = time.monotonic()
    train(work)
    write_images(work)
    training_s = time.monotonic() - begun
    made = ours(work)
    vendors = {form: theirs(work, form, nncf) for form in FORMATS}
    images = seen_by(work.animal, work.data.test[0]).numpy()
    formats = {}
    session = opened()
    try:
        for form in FORMATS:
            formats[form] = beside(work, session, form, made, vendors[form], images, plan)
    finally:
        session.close()
    for done in (made["int8"], made["instead"]):
        if done is not None:
            done["written"] = sorted(done["written"])
    return {
        "model": work.animal.title,
        "epochs": work.epochs,
        "training_s": round(training_s, 1),
        "accuracy": float((work.classes == work.labels).mean()),
        "edgekd": made,
        "formats": formats,
    }


def beside(
    work: Work,
    session: DeviceSession,
    form: str,
    made: Mapping[str, Any],
    vendor: dict[str, Any],
    images: Images,
    plan: MeasurePlan,
) -> dict[str, Any]:
    """Both files of a format, and what differs between them."""
    own: dict[str, Any] = {"precision": "int8"}
    bundle = made["int8"]["written"].get(form)
    if bundle is None:
        own = {"precision": "float32", "no_int8": made["int8"]["reasons"][form]}
        bundle = made["instead"]["written"].get(form)
    files = []
    if bundle is None:
        own["reason"] = made["instead"]["reasons"][form]
    else:
        files.append((own, Path(bundle) / f"model{Format(form).suffix}"))
    if "file" in vendor:
        files.append((vendor, Path(vendor.pop("file"))))
    for side, file in files:
        side |= scored(work, form, file, images)
    good = [(side, file) for side, file in files if "reason" not in side]
    found: dict[str, Any] = {"edgekd": own, "vendor": vendor}
    times = timed(session, form, [file for _, file in good], plan) if good else {"p50": [], "ratio": None}
    for (side, _), p50 in zip(good, times["p50"], strict=True):
        side["p50"] = p50
    if len(good) == 2:
        a, b = own["classes"], vendor["classes"]
        found["latency"] = times["ratio"]
        found["agreement"] = mcnemar(a == work.classes, b == work.classes)
        found["accuracy"] = mcnemar(a == work.labels, b == work.labels)
    for side in (own, vendor):
        side.pop("classes", None)
    return found


def _sign(test: Mapping[str, Any]) -> str:
    if test["p"] >= 0.05:
        return "="
    return "+" if test["only_first"] > test["only_second"] else "-"


def _signs(row: Mapping[str, Any]) -> str:
    """Agreement, accuracy and latency: + where edgekd's file is better beyond noise, - where it is worse."""
    if "agreement" not in row:
        return ""
    ratio = row["latency"]
    time = "?" if ratio is None else "=" if not ratio["distinguishable"] else "-" if ratio["ratio"] > 1 else "+"
    return f"{_sign(row['agreement'])} {_sign(row['accuracy'])} {time}"


def _worse(row: Mapping[str, Any]) -> list[str]:
    """By how much edgekd's file is behind, where that is beyond noise."""
    notes = []
    for what in ("agreement", "accuracy"):
        if what in row and _sign(row[what]) == "-":
            points = 100 * (row["edgekd"][what] - row["vendor"][what])
            notes.append(f"{what} {points:+.1f} points, p = {row[what]['p']:.2g}")
    ratio = row.get("latency")
    if ratio and ratio["distinguishable"] and ratio["ratio"] > 1:
        notes.append(f"{ratio['ratio']:.2f}x the vendor's latency ({ratio['low']:.2f} to {ratio['high']:.2f})")
    return notes


def _pair(row: Mapping[str, Any], text: Any) -> str:
    return " ".join("-" if "reason" in row[side] else text(row[side]) for side in ("edgekd", "vendor"))


def _p50(side: Mapping[str, Any]) -> str:
    return "-" if "reason" in side["p50"] else f"{side['p50']['value']:.0f}"


def printed(cells: Cells) -> str:
    """What is known so far, edgekd's figure before the vendor's."""
    rows, notes, signs, ratios = [], [], [], {form: [] for form in FORMATS}
    found = cells.all()
    for name in [name for name in EPOCHS if name in found]:
        cell = found[name]
        base = cell["accuracy"]
        for form, row in cell["formats"].items():
            sign = _signs(row)
            rows.append(
                (
                    f"{name} {form}",
                    row["edgekd"]["precision"],
                    _pair(row, lambda side: f"{100 * side['agreement']:.1f}"),
                    _pair(row, lambda side, base=base: f"{100 * (side['accuracy'] - base):+.1f}"),
                    _pair(row, _p50),
                    _pair(row, lambda side: f"{side['bytes'] / 1e3:.0f}"),
                    sign,
                )
            )
            if sign and row["edgekd"]["precision"] == "int8":
                signs.append(sign.split())
                if row["latency"]:
                    ratios[form].append(row["latency"]["ratio"])
            notes += [f"{name} {form}: {note}" for note in _worse(row)]
            for side, key in (("edgekd", "no_int8"), ("edgekd", "reason"), ("vendor", "reason")):
                if key in row[side]:
                    notes.append(f"{name} {form}, {row[side].get('tool', 'edgekd')}: {row[side][key]}")
        seconds = [row["vendor"].get("seconds") for row in cell["formats"].values()]
        whole = f"{sum(seconds):.0f} s" if None not in seconds else "-"
        notes.append(
            f"{name}: {base:.1%} in float after {cell['epochs']} epochs; three formats took edgekd "
            f"{cell['edgekd']['int8']['seconds']:.0f} s, the vendors' tools {whole}"
        )
    lines = [
        "edgekd's figure, then the vendor's. lost: points of accuracy against float. apart: agreement, accuracy, "
        "latency; + edgekd's is better beyond noise, - worse, = can't be told apart."
    ]
    if signs:
        agree, _, fast = ([sign[at] for sign in signs] for at in range(3))
        lines.append(
            f"of {len(signs)} pairs in int8 on both sides: agreement no lower in {len(signs) - agree.count('-')}, "
            f"latency no higher in {sum(sign in '=+' for sign in fast)}"
        )
    for form, many in ratios.items():
        if many:
            lines.append(f"{form}: {math.exp(float(np.mean(np.log(many)))):.2f}x the vendor's latency, geometric mean")
    head = ("model", "edgekd", "agree %", "lost", "p50 us", "kB", "apart")
    wrapped = [textwrap.fill(note, 80, subsequent_indent="    ") for note in (*lines, *notes)]
    return table(head, rows, "\n".join(wrapped)) if rows else "nothing measured yet"


def main() -> None:
    """Make the cells that are missing, and print the table."""
    parser = arguments(__doc__, NAME)
    parser.add_argument("--nncf", type=Path, default=ROOT / "runs" / "nncf" / "bin" / "python", help="that has nncf")
    parser.add_argument("--only", choices=tuple(EPOCHS), action="append", help="this model")
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
    results, runs = folders(options, NAME)
    plan = MeasurePlan(processes=5, seed=options.seed)
    cells = Cells(NAME, results, {"tiny": options.tiny, "seed": options.seed, "processes": plan.processes})
    if not options.table:
        require_nncf(options.nncf)
        work(cells, runs, plan, options)
    print(printed(cells))


def require_nncf(python: Path) -> None:
    """Ends the script where the environment isn't there or has another OpenVINO."""
    if not python.is_file():
        raise SystemExit(
            f"no {python}: make an environment that has nncf, as the top of this script says, or give --nncf"
        )
    ask = "import importlib.metadata as m; print(m.version('openvino'), m.version('nncf'))"
    done = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    here = importlib.metadata.version("openvino")
    if done.returncode or done.stdout.split()[0] != here:
        raise SystemExit(f"{python}: nncf and openvino {here} expected, found {done.stdout.strip() or 'neither'}")


def work(cells: Cells, runs: Path, plan: MeasurePlan, options: argparse.Namespace) -> None:
    """Every model whose cell is missing."""
    wanted = options.only or list(TINY if options.tiny else EPOCHS)
    if all(cells.get(name) is not None for name in wanted):
        return
    data = Data.read(options.tiny)
    for name in wanted:
        animal = next(animal for animal in ZOO if animal.name == name)
        folder = runs / name
        folder.mkdir(parents=True, exist_ok=True)
        epochs = TINY.get(name, 2) if options.tiny else EPOCHS[name]
        one = Work(animal, data, folder, epochs, options.seed)
        cells.cell(name, lambda one=one: make(one, options.nncf, plan))


if __name__ == "__main__":
    main()
