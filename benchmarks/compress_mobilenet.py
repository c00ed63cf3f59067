"""A MobileNetV2 of one's own (4.3 million weights, 128 px, 12 classes), compressed with what `edgekd init` writes.

Cells:

    own         the network trained here, once, by a plain loop: CIFAR-10's classes and two of handwritten digits
    compress    `edgekd init --model ... --data FOLDER`, then `edgekd compress` at p50 <= 60 % of its own float32 p50,
                within 25 minutes: seconds to the first finished trial, all seconds, and what was certified
    quantized   the same network alone by `edgekd export --precision ...`: no training, no pruning
    by_hand     a network of 75,000 weights at 64 px, taught the own network's cached answers by a plain loop for as
                many minutes, converted by `litert_torch` and quantized by `ai_edge_quantizer`
    latency     every file of the others, measured in one interleaved batch on one thread

Accuracy is the files' own, on all test pictures. The folder has parts: validation pictures that the own network has
not seen, so that the accuracy floor is a true one. Training pictures are among those that it learnt.

The own network starts small: two epochs at 32 px, then 64 px, then a few thousand pictures at 128 px. It is a fixed
number of pictures, about 15 minutes. The limits that must hold, printed with the table: the first trial within 3
minutes, the budget kept (what comes after it ends: the bundle on the test pictures), accuracy no more than 2 points
below the own network's.

Run: EDGEKD_DATA=... python benchmarks/compress_mobilenet.py [--only compress] [--table]. 75 minutes on two idle cores;
--tiny takes about four minutes and proves nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cells import EDGEKD, ROOT, Cells, arguments, cifar10, folders, opened, patiently, table
from mobilenet_v2 import build, small
from numpy.typing import NDArray

from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import Job, MeasurePlan
from edgekd.measure.figures import figures_of

NAME = "compress_mobilenet"
MODEL = ROOT / "benchmarks" / "mobilenet_v2.py"
SIDE, SMALL_SIDE = 128, 64
MEAN, STD = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)
DIGITS = (3, 8)
SHARE, FIRST_TRIAL_S = "60 % of own", 180
BACKENDS = {"tflite": "litert/xnnpack", "onnx": "onnxruntime/cpu", "openvino": "openvino/cpu"}
FILES = {"tflite": "model.tflite", "onnx": "model.onnx", "openvino": "model.xml"}
CELLS = ("own", "compress", "quantized", "by_hand", "latency")
Pictures = NDArray[np.uint8]


def pictures(tiny: bool) -> dict[str, tuple[Pictures, NDArray[np.int64]]]:
    """All pictures (N, 32, 32, 3) and their classes: ``learn`` for the own network, and the folder's parts."""
    from sklearn.datasets import load_digits

    cifar, digits = np.load(cifar10(tiny)), load_digits()
    counts = {"train": 15, "val": 5, "test": 10} if tiny else {"train": 350, "val": 50, "test": 100}
    found: dict[str, list[tuple[Pictures, int]]] = {"learn": [], "train": [], "val": [], "test": []}
    for label in range(10):
        learnt = cifar["x_train"][cifar["y_train"] == label]
        unseen = cifar["x_test"][cifar["y_test"] == label]
        ends = counts["val"], counts["val"] + counts["test"]
        found["learn"].append((learnt, label))
        found["train"].append((learnt[: counts["train"]], label))
        found["val"].append((unseen[: ends[0]], label))
        found["test"].append((unseen[ends[0] : ends[1]], label))
    for label, digit in enumerate(DIGITS, start=10):
        # 8 x 8 in 17 greys: drawn as large as the others
        grey = (digits.images[digits.target == digit] * 255 / 16).round().astype(np.uint8)
        drawn = np.repeat(np.repeat(np.repeat(grey[..., None], 4, axis=1), 4, axis=2), 3, axis=3)
        cut = (len(drawn) // 10, 3 * len(drawn) // 10)
        found["val"].append((drawn[: cut[0]], label))
        found["test"].append((drawn[cut[0] : cut[1]], label))
        found["train"].append((drawn[cut[1] :][: counts["train"]], label))
        found["learn"].append((drawn[cut[1] :], label))
    return {
        part: (
            np.concatenate([rows for rows, _ in each]),
            np.concatenate([np.full(len(r), label) for r, label in each]),
        )
        for part, each in found.items()
    }


def write_folder(parts: Mapping[str, tuple[Pictures, NDArray[np.int64]]], folder: Path) -> Path:
    """A folder of 128 px pictures as a person has it, with the parts train, val and test."""
    from PIL import Image

    root, done = folder / "pictures", folder / "pictures-written"
    if not done.is_file():
        for part in ("train", "val", "test"):
            for number, (image, label) in enumerate(zip(*parts[part], strict=True)):
                place = root / part / f"class-{label:02d}"
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(place / f"{number:05d}.png")
        done.touch()
    return root


def batches(images: Pictures, labels: NDArray[np.int64], side: int, size: int, count: int, seed: int) -> Iterator[Any]:
    """Shuffled batches of normalised, shifted and mirrored pictures, until ``count`` pictures are through."""
    import torch

    rng, through = np.random.default_rng(seed), 0
    while through < count:
        order = rng.permutation(len(images))
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            at = rng.integers(0, 9, 2)
            padded = np.pad(images[rows], ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect")
            cut = padded[:, at[0] : at[0] + 32, at[1] : at[1] + 32]
            flipped = (rng.random(size) < 0.5) & (labels[rows] < 10)  # a mirrored digit is none
            cut = np.where(flipped[:, None, None, None], cut[:, :, ::-1], cut)
            yield rows, normalised(cut, side), torch.from_numpy(labels[rows].astype(np.int64))
            through += size
            if through >= count:
                return


def normalised(images: Pictures, side: int) -> Any:
    """(N, 32, 32, 3) in, float32 (N, 3, side, side) out, channels last."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float()
    if side != tensor.shape[-1]:
        tensor = torch.nn.functional.interpolate(tensor, (side, side), mode="bicubic", align_corners=False).clamp(
            0, 255
        )
    tensor = (tensor - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    return tensor.contiguous(memory_format=torch.channels_last)


def answers(network: Any, images: Pictures, side: int) -> Any:
    """Logits (N, classes)."""
    import torch

    network.eval()
    with torch.no_grad():
        return torch.cat([network(normalised(images[i : i + 64], side)) for i in range(0, len(images), 64)])


def train_own(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A fixed number of pictures, at 32, 64 and 128 px; AdamW, one cycle of the learning rate."""
    import torch
    from safetensors.torch import save_file
    from torch import nn

    torch.manual_seed(options.seed)
    parts = pictures(options.tiny)
    images, labels = parts["learn"]
    stages = ((32, 1500), (64, 500), (SIDE, 200)) if options.tiny else ((32, 100_000), (64, 120_000), (SIDE, 8_000))
    size, network, step = 64, build().to(memory_format=torch.channels_last), 0
    steps = sum(math.ceil(count / size) for _, count in stages)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.2)
    seconds = {}
    for side, count in stages:
        begun = time.monotonic()
        network.train()
        for _, inputs, wanted in batches(images, labels, side, size, count, options.seed + side):
            loss = nn.functional.cross_entropy(network(inputs), wanted)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            step += 1
            if step % 100 == 0:
                print(f"own: step {step} of {steps}, {side} px, loss {float(loss):.3f}", file=sys.stderr, flush=True)
        seconds[f"{side} px"] = round(time.monotonic() - begun, 1)
    scored = {
        part: right(answers(network, parts[part][0], SIDE).argmax(1).numpy(), parts[part][1])
        for part in ("val", "test")
    }
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "own.safetensors")
    write_folder(parts, folder)
    weights = sum(parameter.numel() for parameter in network.parameters())
    return {"weights": weights, "pictures": dict(stages), "training_s": seconds, "accuracy": scored}


def right(found: NDArray[Any], labels: NDArray[Any]) -> float:
    """The share of right answers."""
    return float((found == labels).mean())


def own_network(folder: Path) -> Any:
    """The trained network."""
    import torch
    from safetensors.torch import load_file

    network = build()
    network.load_state_dict(load_file(folder / "own.safetensors"))
    return network.eval().to(memory_format=torch.channels_last)


def run_command(*words: str | Path, cache: Path | None = None) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON answer of an `edgekd` command, which waits while another one measures here."""
    environment = os.environ if cache is None else {**os.environ, "XDG_CACHE_HOME": str(cache)}
    while True:
        done = subprocess.run([EDGEKD, *words], stdout=subprocess.PIPE, text=True, check=False, env=environment)
        answer: dict[str, Any] = json.loads(done.stdout) if done.stdout.strip() else {}
        if answer.get("error") != "DeviceBusy":
            return done.returncode, answer
        time.sleep(5)


def project(options: argparse.Namespace, folder: Path) -> Path:
    """What `edgekd init` writes, with the model's own size and normalisation, its target and its budget put in."""
    import yaml

    place = folder / "project"
    place.mkdir(exist_ok=True)
    words = ["--model", f"{MODEL}:build", "--weights", folder / "own.safetensors", "--data", folder / "pictures"]
    subprocess.run([EDGEKD, "init", *words, "--force"], cwd=place, check=True, stdout=subprocess.DEVNULL)
    text = (place / "project.yaml").read_text()
    values = {"mean": list(MEAN), "std": list(STD)}
    for name, value in values.items():
        text = re.sub(rf"^  # {name}: \[.*?\]", f"  {name}: {value}", text, flags=re.MULTILINE)
    text = re.sub(r"^  size: \d+", f"  size: {SIDE}", text, flags=re.MULTILINE)
    text = text.replace("budget: 30 min, seed: 0", f"budget: {options.minutes:g} min, seed: {options.seed}")
    (place / "project.yaml").write_text(text)
    target = yaml.safe_load((place / "here.yaml").read_text())
    target["budgets"] = {"latency": {"p50": SHARE}}
    (place / "here.yaml").write_text(yaml.safe_dump(target, sort_keys=False))
    return place / "project.yaml"


def compress(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The command, timed from outside, and what its run folder says."""
    from edgekd.store.run import Run

    path, place = project(options, folder), folder / "run"
    begun, used = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    # as on the first day: nothing is known yet
    code, answer = run_command("compress", path, "--run", place, "--format", "json", cache=folder / "cache")
    wall = time.time() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code not in (0, 5, 6):
        raise SystemExit(f"edgekd compress ended with {code}: {answer}")
    run = Run.open(place)
    trials, original, proposals, outcome = run.trials(), run.original(), run.proposals(), run.outcome()
    written = {path.stem: path.stat().st_mtime - begun for path in (place / "trials").glob("*.json")}
    trained = [written[f"{t.number:04d}"] for t in trials if not t.candidate.plan.untouched and t.accuracy]
    chosen = next((finalist for finalist in run.finalists() if finalist.chosen), None)
    return {
        "exit_code": code,
        "budget_s": run.header.budget_s,
        "wall_s": round(wall, 1),
        "cpu_s": round(after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime, 1),
        "first_trial_s": round(min(written.values()), 1) if written else None,
        "first_trained_s": round(min(trained), 1) if trained else None,
        "searched_s": round(proposals.ended_s, 1) if proposals else None,
        "outcome_s": round(outcome.seconds, 1) if outcome else None,
        "trials": len(trials),
        "trained": len(trained),
        "own": original.model_dump(mode="json") if original else None,
        "outcome": answer["outcome"],
        "certificate": answer["certificate"],
        "candidate": str(chosen.candidate) if chosen else None,
        "curve": len(chosen.curve) if chosen else None,
        "summary": answer.get("own"),
    }


def quantized(folder: Path) -> dict[str, Any]:
    """The own network at each precision, by one command and without any training."""
    place = folder / "exported"
    words: list[str | Path] = [f"{MODEL}:build", "--weights", folder / "own.safetensors", "--output", place]
    words += ["--data", folder / "pictures", "--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD))]
    words += [
        "--precision",
        "float32,dynamic-int8,int8",
        "--input",
        f"3x{SIDE}x{SIDE}",
        "--format",
        "json,tflite,onnx,openvino",
    ]
    code, answer = run_command("export", *words)
    if code not in (0, 3, 7):
        raise SystemExit(f"edgekd export ended with {code}: {answer}")
    for made in answer.get("files", ()):
        if made["bundle"] is not None:
            made["bundle"] = str(Path(made["bundle"]).relative_to(folder))
    return {"exit_code": code, "answer": answer}


def by_hand(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """75,000 weights at 64 px, by AdamW and a cosine over the same minutes; float32 and int8 by the vendor's tools."""
    import torch
    from torch import nn

    torch.manual_seed(options.seed)
    begun, seconds = time.monotonic(), 60 * options.minutes
    parts = pictures(options.tiny)
    images, labels = parts["train"]
    teacher = own_network(folder)
    known = answers(teacher, images, SIDE)
    network, epochs = small().to(memory_format=torch.channels_last), 0.0
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.01)
    network.train()
    for rows, inputs, wanted in batches(images, labels, SMALL_SIDE, 32, 10**9, options.seed):
        spent = (time.monotonic() - begun) / seconds
        if spent >= 1.0:
            break
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * 0.5 * (1 + math.cos(math.pi * spent))
        teacher_logits, logits = known[rows] / 4.0, network(inputs)
        log_student, teacher_shares = (logits / 4.0).log_softmax(1), teacher_logits.softmax(1)
        kd = nn.functional.kl_div(log_student, teacher_shares, reduction="batchmean") * 16.0
        loss = 0.9 * kd + 0.1 * nn.functional.cross_entropy(logits, wanted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        epochs += len(rows) / len(images)
    place = folder / "by-hand"
    place.mkdir(exist_ok=True)
    files = vendor_files(network.eval().to(memory_format=torch.contiguous_format), images, place, options.seed)
    scored = {name: right(litert_answers(path, parts["test"][0]), parts["test"][1]) for name, path in files.items()}
    return {
        "weights": sum(parameter.numel() for parameter in network.parameters()),
        "epochs": round(epochs, 1),
        "training_s": round(time.monotonic() - begun, 1),
        "torch": right(answers(network, parts["test"][0], SMALL_SIDE).argmax(1).numpy(), parts["test"][1]),
        "accuracy": scored,
        "size_bytes": {name: path.stat().st_size for name, path in files.items()},
    }


def vendor_files(network: Any, images: Pictures, place: Path, seed: int) -> dict[str, Path]:
    """``float32`` by litert_torch, and ``int8`` by ai_edge_quantizer's static recipe, calibrated on 200 pictures."""
    import litert_torch
    import torch
    from ai_edge_quantizer import quantizer, recipe

    rows = np.random.default_rng(seed).permutation(len(images))[:200]
    inputs = normalised(images[rows], SMALL_SIDE).permute(0, 2, 3, 1).contiguous()
    module = litert_torch.to_channel_last_io(network, args=[0]).eval()
    with torch.no_grad():
        made = litert_torch.convert(module, (inputs[:1],))
    files = {"float32": place / "float32.tflite", "int8": place / "int8.tflite"}
    made.export(str(files["float32"]))
    work = quantizer.Quantizer(str(files["float32"]), recipe.static_wi8_ai8())
    name = next(iter(litert(files["float32"]).get_signature_runner().get_input_details()))
    samples = [{name: inputs[i : i + 1].numpy()} for i in range(len(inputs))]
    ranges = work.calibrate({"serving_default": samples})
    files["int8"].write_bytes(bytes(work.quantize(ranges).quantized_model))
    return files


def litert(path: Path) -> Any:
    """The runtime's interpreter, ready."""
    from ai_edge_litert.interpreter import Interpreter

    found = Interpreter(model_path=str(path))
    found.allocate_tensors()
    return found


def litert_answers(path: Path, images: Pictures) -> NDArray[np.int64]:
    """The class that the file gives each picture, one at a time."""
    run = litert(path)
    given, answered, found = run.get_input_details()[0], run.get_output_details()[0], []
    inputs = normalised(images, SMALL_SIDE).permute(0, 2, 3, 1).contiguous().numpy()
    for row in inputs:
        scale, zero = given["quantization"]
        values = row if given["dtype"] == np.float32 else np.clip(np.round(row / scale + zero), -128, 127)
        run.set_tensor(given["index"], values[None].astype(given["dtype"]))
        run.invoke()
        found.append(int(run.get_tensor(answered["index"])[0].argmax()))
    return np.asarray(found)


def files_of(cells: Cells, folder: Path) -> dict[str, tuple[Path, str]]:
    """Every file of the finished cells by a name, with the backend it is for."""
    found: dict[str, tuple[Path, str]] = {}
    for made in (cells.get("quantized") or {"answer": {"files": []}})["answer"]["files"]:
        if made["bundle"] is not None:
            path = folder / made["bundle"] / FILES[made["format"]]
            found[f"own, {made['format']} {made['precision']}"] = (path, BACKENDS[made["format"]])
    certificate = (cells.get("compress") or {"certificate": None})["certificate"]
    if certificate is not None:
        backend = certificate["backend"]
        path = folder / "run" / "bundle" / certificate["model"]
        found["compressed"] = (path, backend if isinstance(backend, str) else str(Backend.model_validate(backend)))
    for name in (cells.get("by_hand") or {"accuracy": {}})["accuracy"]:
        found[f"by hand, {name}"] = (folder / "by-hand" / f"{name}.tflite", BACKENDS["tflite"])
    return found


def latency(options: argparse.Namespace, cells: Cells, folder: Path) -> dict[str, Any]:
    """Every file in one interleaved batch, on one thread."""
    files = files_of(cells, folder)
    jobs = {
        name: Job(artefact=Artefact.of(path), backend=Backend.model_validate(backend))
        for name, (path, backend) in files.items()
    }
    plan, session = MeasurePlan(processes=3 if options.tiny else 5, seed=options.seed), opened()
    try:
        measured = dict(zip(jobs, patiently(lambda: session.measure(list(jobs.values()), plan)), strict=True))
    finally:
        session.close()
    rows = {}
    for name, measurement in measured.items():
        figures = {figure.metric: figure.model_dump(mode="json") for figure in figures_of(measurement)}
        rows[name] = {
            "backend": str(jobs[name].backend),
            "p50": figures.get("latency.p50"),
            "low": figures.get("latency.p5"),
            "size_bytes": jobs[name].artefact.size_bytes,
        }
    return {"files": rows}


def accuracies(found: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Of every file on all test pictures, by the names of `files_of`."""
    scores: dict[str, float] = {}
    for made in found.get("quantized", {"answer": {"files": []}})["answer"]["files"]:
        if made["accuracy"] is not None:
            scores[f"own, {made['format']} {made['precision']}"] = made["accuracy"]
    certificate = found.get("compress", {"certificate": None})["certificate"]
    if certificate is not None:
        scores["compressed"] = certificate["accuracy"]["value"]
    for name, value in found.get("by_hand", {"accuracy": {}})["accuracy"].items():
        scores[f"by hand, {name}"] = value
    return scores


def printed(cells: Cells) -> str:
    """What is known so far, and whether the limits hold."""
    found, notes, rows = cells.all(), list[str](), []
    scores = accuracies(found)
    measured = found.get("latency", {"files": {}})["files"]
    for name in measured or scores:
        row = measured.get(name)
        p50 = f"{row['p50']['value']:,.0f}" if row and row["p50"] else "-"
        size = f"{row['size_bytes']:,}" if row else "-"
        rows.append((name, f"{scores[name]:.1%}" if name in scores else "-", size, p50))
    if own := found.get("own"):
        notes.append(f"own: {own['weights']:,} weights, {own['accuracy']['test']:.1%} test in PyTorch")
    if cell := found.get("compress"):
        first, most = cell["first_trial_s"], cell["budget_s"]
        reached = "none" if first is None else f"{first:.0f} s of {FIRST_TRIAL_S}"
        notes.append(
            f"compress: first trial {reached}; {cell['wall_s']:.0f} s of {most:.0f} s, {cell['cpu_s']:.0f} CPU s"
        )
        notes.append(f"  {cell['trials']} trials, {cell['trained']} of them trained; exit {cell['exit_code']}")
        notes.append(f"  {cell['candidate'] or cell['outcome']['summary']}"[:80])
        cautions = (cell["certificate"] or {"cautions": []}).get("cautions", [])
        notes += [f"  caution: {caution}"[:80] for caution in cautions]
    if hand := found.get("by_hand"):
        notes.append(f"by hand: {hand['weights']:,} weights, {hand['epochs']:g} epochs in {hand['training_s']:.0f} s")
    if not rows and not notes:
        return "nothing measured yet"
    return table(("MobileNetV2, 12 classes", "test", "bytes", "p50 us"), rows, "\n".join(notes))


def main() -> None:
    parser = arguments(__doc__, NAME)
    parser.add_argument("--minutes", type=float, default=25, help="of the compression and of the training by hand")
    parser.add_argument("--only", choices=CELLS, action="append", help="this cell")
    options = parser.parse_args()
    options.minutes = 2 if options.tiny else options.minutes
    results, runs = folders(options, NAME)
    cells = Cells(NAME, results, {"tiny": options.tiny, "seed": options.seed, "minutes": options.minutes})
    if options.table:
        print(printed(cells))
        return
    work: dict[str, Callable[[], Mapping[str, Any]]] = {
        "own": lambda: train_own(options, runs),
        "compress": lambda: compress(options, runs),
        "quantized": lambda: quantized(runs),
        "by_hand": lambda: by_hand(options, runs),
        "latency": lambda: latency(options, cells, runs),
    }
    for name in options.only or CELLS:
        cells.cell(name, work[name])
    print(printed(cells))


if __name__ == "__main__":
    main()
