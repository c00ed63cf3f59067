"""One's own pictures: 720 in 12 folders and a trained teacher, by the commands of the README alone.

The pictures are 60 of each of CIFAR-10's ten classes (PNG, out of its test images, which the teacher has not seen) and
60 of each of two digits (JPEG). The teacher is the pretrained ResNet-56, whose head of 12 classes is fitted to its own
features of the training pictures. Cells:

    torch      init --data, check, search with the teacher as PyTorch code with weights, verify
    tflite     the same with the teacher as a TFLite file, which `edgekd export` wrote
    by-hand    the network that `torch` chose, trained by a plain loop as long as that search took: cross-entropy and
               the teacher's logits (temperature 4, weight 0.9), batches of 32, cosine, no augmentation; AdamW and SGD,
               the better of both on the validation pictures counts

Of 144 test pictures a difference of ten points is noise: so both networks are also asked about 4,000 more of CIFAR-10's
test images, which no run has seen.

Of the project as `init` writes it only the teacher and the runtime (LiteRT) are changed. The exported file is scored
with Pillow, ai-edge-litert and preprocess.json alone, on the pictures that the run lists as its test split, and the
answers are compared with the certificate and, picture by picture, with those of the network trained by hand.

Run: EDGEKD_DATA=... python benchmarks/own_pictures.py [--minutes 8]. About 32 minutes on two idle cores; --tiny takes
three minutes.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from cells import EDGEKD, ROOT, Cells, arguments, cifar10, data_folder, folders, table
from PIL import Image, ImageOps

NAME = "own_pictures"
EACH, UNSEEN = 60, 4000
DIGITS = {3: "three", 8: "eight"}
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
TEMPERATURE, WEIGHT = 4.0, 0.9
RATES = {"adamw": 1e-3, "sgd": 0.05}
TEACHER = """\
import cifar_resnet
from torch import nn


def build():
    model = cifar_resnet.resnet56()
    model.linear = nn.Linear(64, 12)
    return model
"""


def main() -> None:
    """Make the cells that are missing, and print the table."""
    parser = arguments(__doc__, NAME)
    parser.add_argument("--minutes", type=float, default=8.0, help="of each search")
    options = parser.parse_args()
    if options.tiny:
        options.minutes = 1.0
    results, runs = folders(options, NAME)
    cells = Cells(NAME, results, {"minutes": options.minutes, "seed": options.seed})
    if not options.table:
        make_pictures(runs / "pictures", options.seed)
        make_teacher(runs)
        torch_cell = cells.cell("torch", lambda: walked(runs, "torch", options))
        cells.cell("tflite", lambda: walked(runs, "tflite", options))
        cells.cell("by-hand", lambda: by_hand(runs, torch_cell, options.seed))
    print(report(cells))


def make_pictures(root: Path, seed: int) -> None:
    """A folder a class."""
    if root.is_dir():
        return
    draft = root.with_name("pictures-draft")
    shutil.rmtree(draft, ignore_errors=True)
    from sklearn.datasets import load_digits

    digits, rng, (images, labels) = load_digits(), np.random.default_rng(seed), cifar_test()
    for number, name in enumerate(CIFAR):
        (draft / name).mkdir(parents=True)
        for at in rng.choice(np.flatnonzero(labels == number), EACH, replace=False):
            Image.fromarray(images[at]).save(draft / name / f"{at:05}.png")
    for digit, name in DIGITS.items():
        (draft / name).mkdir()
        for at in np.flatnonzero(digits.target == digit)[:EACH]:
            small = Image.fromarray((digits.images[at] * 15.9).astype(np.uint8))
            large = small.resize((32, 32), Image.Resampling.BICUBIC).convert("RGB")
            large.save(draft / name / f"{at:05}.jpg", quality=92)
    draft.replace(root)


def cifar_test() -> tuple[Any, Any]:
    """CIFAR-10's test images (10000, 32, 32, 3) and their labels."""
    with np.load(cifar10(tiny=False)) as arrays:
        return arrays["x_test"], arrays["y_test"]


class Unseen(NamedTuple):
    """Images (N, 32, 32, 3) that are not among the pictures, and the names of their classes."""

    images: Any
    names: Any

    @classmethod
    def beside(cls, root: Path) -> Unseen:
        """The first of CIFAR-10's test images that aren't there."""
        images, labels = cifar_test()
        taken = {int(path.stem) for name in CIFAR for path in (root / name).glob("*.png")}
        chosen = [at for at in range(len(images)) if at not in taken][:UNSEEN]
        return cls(images[chosen], np.array(CIFAR)[labels[chosen]])


def make_teacher(runs: Path) -> None:
    """``teacher.py`` and ``teacher.safetensors``: the head of 12 classes is a softmax regression on features."""
    shutil.copy(ROOT / "examples" / "cifar_resnet.py", runs)
    (runs / "teacher.py").write_text(TEACHER)
    if (runs / "teacher.safetensors").is_file():
        return
    import torch
    from safetensors.torch import save_file

    sys.path.insert(0, str(runs))
    import cifar_resnet

    task = task_of(runs)
    model = cifar_resnet.resnet56().eval()
    with np.load(data_folder() / "cifar-resnets" / "resnet56.npz") as arrays:
        model.load_state_dict({key: torch.from_numpy(arrays[key]) for key in arrays.files}, strict=False)
    model.linear = torch.nn.Identity()
    split = task.split("train")
    with torch.no_grad():
        features = torch.cat([model(each) for each in normalised(split.inputs).split(64)])
    labels, head = torch.from_numpy(split.labels), torch.nn.Linear(64, task.spec.head.classes)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Any:
        optimizer.zero_grad()
        found = torch.nn.functional.cross_entropy(head(features), labels) + 1e-3 * head.weight.square().sum()
        found.backward()
        return found

    optimizer.step(loss)
    model.linear = head
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, runs / "teacher.safetensors")


def task_of(runs: Path) -> Any:
    """The pictures as the project reads them."""
    from edgekd.tasks.images.folder import ImageFolder

    return ImageFolder(root=runs / "pictures", size=(32, 32))


def normalised(images: Any) -> Any:
    """(N, 3, 32, 32) as the teacher takes them."""
    import torch

    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (torch.from_numpy(np.array(images)).float() - mean) / std


def walked(runs: Path, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """From pictures and a teacher to a verified bundle."""
    folder = runs / kind
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("pictures", "teacher.py", "teacher.safetensors", "cifar_resnet.py"):
        (folder / name).symlink_to(runs / name)
    seconds = dict[str, float]()

    def step(name: str, *words: str) -> dict[str, Any]:
        begun = time.monotonic()
        done = subprocess.run(
            [EDGEKD, *words, "--format", "json"], cwd=folder, stdout=subprocess.PIPE, text=True, check=False
        )
        seconds[name] = round(time.monotonic() - begun, 1)
        if done.returncode not in (0, 6):
            raise SystemExit(f"edgekd {' '.join(words)} ended with {done.returncode}: {done.stdout}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    normal = f"mean: {list(MEAN)}, std: {list(STD)}"
    teacher = f"{{kind: torch, module: teacher.py:build, weights: teacher.safetensors, {normal}}}"
    if kind == "tflite":
        means, stds = (",".join(map(str, values)) for values in (MEAN, STD))
        words = ["--weights", "teacher.safetensors", "--data", "pictures", "--mean", means, "--std", stds]
        begun = time.monotonic()
        subprocess.run(
            [EDGEKD, "export", "teacher.py:build", *words, "--format", "tflite", "--output", "teacher"],
            cwd=folder,
            stdout=sys.stderr,
            check=True,
        )
        seconds["export"] = round(time.monotonic() - begun, 1)
        teacher = "{kind: tflite, file: teacher/tflite/model.tflite, input: raw}"
    step("init", "init", "--data", "pictures")
    change(folder / "project.yaml", r"teacher:.*?\n\n", f"teacher: {teacher}\n\n")
    change(folder / "here.yaml", r"backends: \[[^]]*\]", "backends: [litert/xnnpack]")
    step("check", "check", "project.yaml")
    found = step("search", "search", "project.yaml", "--run", "run", "--budget", f"{options.minutes:g} min")
    verified = step("verify", "verify", "run/bundle")
    certificate = found["certificate"]
    right = scored(folder / "run", Unseen.beside(runs / "pictures"))
    return {
        "seconds": seconds,
        "outcome": found["outcome"],
        "certificate": certificate,
        "verified": verified.get("answer", verified),
        **kept(right),
    }


def kept(right: Mapping[str, list[bool]]) -> dict[str, Any]:
    """Accuracies, and a digit a picture."""
    return {
        "accuracy": {part: float(np.mean(each)) for part, each in right.items()},
        "right": {part: "".join("01"[one] for one in each) for part, each in right.items()},
    }


def change(path: Path, pattern: str, text: str) -> None:
    """One edit of a file, as a person would make it."""
    new, count = re.subn(pattern, lambda _: text, path.read_text(), count=1, flags=re.DOTALL)
    if not count:
        raise SystemExit(f"{path} has nothing like {pattern}")
    path.write_text(new)


def scored(run: Path, unseen: Unseen) -> dict[str, list[bool]]:
    """Where the exported file is right, on the run's test pictures and on the others; nothing of edgekd is used."""
    from ai_edge_litert.interpreter import Interpreter

    bundle = run / "bundle"
    certificate, stated = (json.loads((bundle / name).read_text()) for name in ("certificate.json", "preprocess.json"))
    interpreter = Interpreter(str(bundle / certificate["model"]))
    interpreter.allocate_tensors()

    def is_right(picture: Image.Image, name: str) -> bool:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], prepared(picture, stated))
        interpreter.invoke()
        (logits,) = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        return bool(stated["output"]["labels"][int(logits.argmax())] == name)

    with (run / "splits.csv").open(encoding="utf-8", newline="") as listed:
        rows = [row for row in csv.DictReader(listed) if row["split"] == "test"]
    return {
        "test": [is_right(Image.open(row["path"]), row["label"]) for row in rows],
        "unseen": [is_right(Image.fromarray(image), name) for image, name in zip(*unseen, strict=True)],
    }


def prepared(picture: Image.Image, stated: Mapping[str, Any]) -> Any:
    """A picture as the model takes it, by what preprocess.json says."""
    spec = stated["picture"]
    if stated["input"]["steps"] != ["order the axes as batch, height, width, channel"]:
        raise SystemExit(f"preprocess.json asks for more than this reads: {stated['input']['steps']}")
    image = (ImageOps.exif_transpose(picture) if spec["orientation"] == "exif" else picture).convert(spec["mode"])
    size, filtering = (spec["size"][1], spec["size"][0]), Image.Resampling[spec["resampling"].upper()]
    image = ImageOps.fit(image, size, filtering) if spec["fit"] == "crop" else image.resize(size, filtering)
    return np.asarray(image, stated["input"]["dtype"])[None]


def by_hand(runs: Path, torch_cell: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The network that `torch` chose, trained with each optimizer as long as that search took."""
    made = {name: trained(runs, torch_cell, name, seed) for name in RATES}
    return {"made": made, "best": max(made, key=lambda name: made[name]["accuracy"]["validation"])}


def trained(runs: Path, torch_cell: Mapping[str, Any], optimizer: str, seed: int) -> dict[str, Any]:
    """One training by the clock; the rate follows a cosine over the time, and the last weights are scored."""
    import torch
    from safetensors.torch import load_file
    from torch.nn import functional

    from edgekd.ir.space import Arch
    from edgekd.project import read_project
    from edgekd.students.student import new_student

    sys.path.insert(0, str(runs))
    import cifar_resnet

    torch.manual_seed(seed)
    project = read_project(runs / "torch" / "project.yaml")
    task, seconds = project.task, torch_cell["seconds"]["search"]
    teacher = cifar_resnet.resnet56().eval()
    teacher.linear = torch.nn.Linear(64, task.spec.head.classes)
    teacher.load_state_dict(load_file(runs / "teacher.safetensors"))
    student = new_student(
        project.family, Arch.model_validate(torch_cell["certificate"]["candidate"]["arch"]), task.spec, seed
    ).module.train()
    splits = {name: task.split(name) for name in ("train", "validation", "test")}
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (task.spec.input.mean, task.spec.input.std))
    inputs = {name: (torch.from_numpy(np.array(split.inputs)).float() - mean) / std for name, split in splits.items()}
    labels = torch.from_numpy(splits["train"].labels)
    with torch.no_grad():
        taught = torch.cat([teacher(each) for each in normalised(splits["train"].inputs).split(64)])
    if optimizer == "adamw":
        stepping: Any = torch.optim.AdamW(student.parameters(), lr=RATES[optimizer], weight_decay=0.05)
    else:
        stepping = torch.optim.SGD(
            student.parameters(), lr=RATES[optimizer], momentum=0.9, weight_decay=5e-4, nesterov=True
        )
    begun, steps, past = time.monotonic(), 0, 0.0
    while past < 1:
        for chosen in torch.randperm(len(labels)).split(32):
            past = (time.monotonic() - begun) / seconds
            for group in stepping.param_groups:
                group["lr"] = RATES[optimizer] * 0.5 * (1 + np.cos(np.pi * min(past, 1.0)))
            logits = student(inputs["train"][chosen])
            soft, wanted = functional.log_softmax(logits / TEMPERATURE, 1), taught[chosen] / TEMPERATURE
            kd = functional.kl_div(soft, wanted.log_softmax(1), reduction="batchmean", log_target=True)
            loss = WEIGHT * TEMPERATURE**2 * kd + (1 - WEIGHT) * functional.cross_entropy(logits, labels[chosen])
            stepping.zero_grad()
            loss.backward()
            stepping.step()
            steps += 1
    student.eval()
    unseen = Unseen.beside(runs / "pictures")
    inputs["unseen"] = (torch.from_numpy(unseen.images.transpose(0, 3, 1, 2).copy()).float() - mean) / std
    wanted_of = {name: split.labels for name, split in splits.items()}
    wanted_of["unseen"] = np.array([task.spec.head.labels.index(name) for name in unseen.names])
    with torch.no_grad():
        right = {
            name: torch.cat([student(each) for each in inputs[name].split(64)]).argmax(1).numpy() == wanted_of[name]
            for name in ("validation", "test", "unseen")
        }
    return {
        **kept({name: each.tolist() for name, each in right.items()}),
        "steps": steps,
        "seconds": round(time.monotonic() - begun, 1),
    }


def report(cells: Cells) -> str:
    """What is known."""
    rows, hand = list[list[object]](), cells.get("by-hand")
    for kind in ("torch", "tflite"):
        cell = cells.get(kind)
        if cell is not None:
            certificate, seconds = cell["certificate"], cell["seconds"]
            p95 = next(figure for figure in certificate["figures"] if figure["metric"] == "latency.p95")
            rows.append(
                [
                    f"edgekd, teacher in {kind}",
                    percent(certificate["accuracy"]["value"]),
                    percent(cell["accuracy"]["test"]),
                    percent(cell["accuracy"]["unseen"]),
                    f"{p95['value']:.0f} us",
                    f"{seconds['check']:.0f} s",
                    f"{seconds['search']:.0f} s",
                ]
            )
    for name, one in hand["made"].items() if hand else ():
        best = ", the better" if name == hand["best"] else ""
        row = [f"by hand, {name}{best}", "", percent(one["accuracy"]["test"]), percent(one["accuracy"]["unseen"])]
        rows.append([*row, "", "", f"{one['seconds']:.0f} s"])
    head = ["trained", "certificate", "test", "unseen", "p95", "check", "search"]
    return table(head, rows, note(cells, hand))


def percent(share: float) -> str:
    """With one decimal."""
    return f"{100 * share:.1f} %"


def note(cells: Cells, hand: Mapping[str, Any] | None) -> str:
    """Of the unseen images: on how many one of both alone is right, with McNemar's exact test."""
    from scipy.stats import binomtest

    walk = cells.get("torch")
    if walk is None or hand is None:
        return ""
    right, lines = np.array(list(walk["right"]["unseen"])), []
    for name, one in hand["made"].items():
        other = np.array(list(one["right"]["unseen"]))
        ours, theirs = int((right > other).sum()), int((right < other).sum())
        p = binomtest(ours, ours + theirs).pvalue if ours + theirs else 1.0
        lines.append(f"unseen: edgekd alone right on {ours}, {name} on {theirs}: McNemar's exact p {p:.1e}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
