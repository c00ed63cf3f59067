"""A training on a folder of pictures: how much memory it takes, and how fast it is beside the same pictures in memory.

    decoding    the task `image-folder` made ready: every JPEG decoded once into the cache, by all cores
    folder      one epoch of `distill` on labels and a validation, the pictures mapped from the cache
    in memory   the same with all splits copied into memory

Each is made in a process of its own, with a half and with all of the pictures. What should come out: the memory of
`decoding` and `folder` doesn't grow with the pictures, and `folder` is within 10 % of `in memory`. The student is
small, so that reading is as large a share of the time as it can be. Pictures are made here: blurred noise with a
class's stripes, about 25 KB a JPEG of 256 x 240.

Memory is the kernel's peak of the whole process (VmHWM), with torch in it, and pages of the mapped file that are in
use. Trainings of both kinds are made in turn, and the fastest of each is told: other work only ever slows one.

Run: python benchmarks/image_folder.py [--pictures 20000] [--side 224]. Ten minutes for 20,000 on two idle cores, and
7 GB of disk; --tiny takes two minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from cells import Cells, arguments, folders, table
from PIL import Image

from edgekd.distill.curve import CURVE_FILE
from edgekd.distill.stage import Distill
from edgekd.ir.space import Arch
from edgekd.stages import StageContext
from edgekd.students.resnet import ResNet
from edgekd.students.student import new_student
from edgekd.tasks._protocol import Rows, Score, Split, SplitName, TaskSpec
from edgekd.tasks.images.folder import ImageFolder

CLASSES = 12
STUDENT = {"width1": 8, "width2": 16, "width3": 32, "depth1": 1, "depth2": 1, "depth3": 1, "stem_stride": 4}
Kind = Literal["decoding", "folder", "in memory"]


def main() -> None:
    """Make the cells that are missing, and print the table."""
    parser = arguments(__doc__, "image_folder")
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", choices=["decoding", "folder", "in memory"], help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(WORK[options.work](options.root, options.side, options.seed)))
        return
    results, runs = folders(options, "image_folder")
    count = 600 if options.tiny else options.pictures
    cells = Cells(
        "image_folder",
        results,
        {"pictures": count, "side": options.side, "rounds": options.rounds, "seed": options.seed},
    )
    if not options.table:
        for some in (count // 2, count):
            root = runs / f"pictures-{some}"
            make_pictures(root, some, options.seed)
            environment = {**os.environ, "XDG_CACHE_HOME": str(runs / f"cache-{some}")}

            def run(work: Kind, root: Path = root, environment: Mapping[str, str] = environment) -> dict[str, Any]:
                asked = ["--work", work, "--root", root, "--side", options.side, "--seed", options.seed]
                line = [sys.executable, __file__, *map(str, asked)]
                done = subprocess.run(line, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
                return found

            cells.cell(f"decoding-{some}", lambda run=run: run("decoding"))
            cells.cell(f"training-{some}", lambda run=run: in_turn(run, options.rounds))
    print(report(cells, count))


def make_pictures(root: Path, count: int, seed: int) -> None:
    """JPEGs of 256 x 240 in a folder a class; those that are there are left."""
    for at in range(count):
        path = root / f"class-{at % CLASSES:02}" / f"{at:06}.jpg"
        if path.is_file():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([seed, at])
        coarse = Image.fromarray(rng.integers(0, 256, (30, 32, 3), np.uint8)).resize(
            (256, 240), Image.Resampling.BICUBIC
        )
        turn, (down, across) = np.pi * (at % CLASSES) / CLASSES, np.mgrid[:240, :256]
        stripes = 40 * np.sin((across * np.cos(turn) + down * np.sin(turn)) / 8)
        pixels = np.asarray(coarse) * 0.6 + stripes[..., None] + rng.normal(50, 8, (240, 256, 1))
        part = path.with_suffix(".part")
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(part, "JPEG", quality=88)
        part.replace(path)


def in_turn(run: Callable[[Kind], dict[str, Any]], rounds: int) -> dict[str, Any]:
    """The two kinds of training by turns: the fastest of each, and the least of their peaks."""
    made = [(run("folder"), run("in memory")) for _ in range(rounds)]
    folder, memory = (max(each, key=lambda one: one["images_per_s"]) for each in zip(*made, strict=True))
    return {"folder": folder, "in memory": memory, "rounds": made}


def decode(root: Path, side: int, seed: int) -> dict[str, Any]:
    """The task made ready."""
    del seed
    task, begun = task_of(root, side), time.perf_counter()
    task.prepare(lambda *_: None, lambda: False)
    seconds = time.perf_counter() - begun
    pictures = len(list(root.glob("*/*.jpg")))
    disk = sum(path.stat().st_size for path in Path(os.environ["XDG_CACHE_HOME"]).rglob("*") if path.is_file())
    return {"seconds": seconds, "pictures_per_s": pictures / seconds, "disk_bytes": disk, **peaks()}


def train_from_folder(root: Path, side: int, seed: int) -> dict[str, Any]:
    """One epoch, mapped."""
    return trained(task_of(root, side), root, seed)


def train_in_memory(root: Path, side: int, seed: int) -> dict[str, Any]:
    """One epoch, copied."""
    return trained(InMemory(task_of(root, side)), root, seed)


def trained(task: Any, root: Path, seed: int) -> dict[str, Any]:
    """Labels alone, with crops and flips, and a validation at the end."""
    folder = root.parent / f"training-{os.getpid()}"
    context = StageContext(
        task=task,
        teacher=None,
        device=None,
        backend=None,
        folder=folder,
        cache=folder,
        seed=seed,
        progress=lambda _: None,
        stop=lambda: False,
    )
    family = ResNet.model_validate({"space": {"stem_stride": [2, 4]}})
    student = new_student(family, Arch.of(STUDENT), task.spec, seed)
    Distill.model_validate({"loss": "ce", "epochs": 1, "batch_size": 64, "warmup_epochs": 0}).run(student, context)
    point = json.loads((folder / CURVE_FILE).read_text().splitlines()[0])
    return {"images_per_s": point["images_per_s"], "validation": point["validation"], **peaks()}


@dataclass(frozen=True)
class InMemory:
    """A task whose splits are copied."""

    task: ImageFolder

    @property
    def spec(self) -> TaskSpec:
        """The task's."""
        return self.task.spec

    def split(self, name: SplitName) -> Split:
        """All of it in memory."""
        found = COPIED.get(name)
        if found is None:
            split = self.task.split(name)
            found = COPIED[name] = Split(name, np.array(split.inputs), split.labels, split.digest)
        return found

    def score(self, outputs: Rows, labels: Rows) -> Score:
        """The task's."""
        return self.task.score(outputs, labels)


COPIED: dict[str, Split] = {}


def task_of(root: Path, side: int) -> ImageFolder:
    """The folder as a task."""
    return ImageFolder(root=root, size=(side, side), flip=True)


def peaks() -> dict[str, int]:
    """Bytes: the most that the process had at once, and what of it now is neither a file's nor shared."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    peak, own = (int(lines[name].split()[0]) * 1024 for name in ("VmHWM", "RssAnon"))
    return {"peak_bytes": peak, "anonymous_bytes": own}


WORK: Mapping[str, Callable[[Path, int, int], dict[str, Any]]] = {
    "decoding": decode,
    "folder": train_from_folder,
    "in memory": train_in_memory,
}


def report(cells: Cells, count: int) -> str:
    """What is known."""
    rows = []
    for some in (count // 2, count):
        decoding, training = cells.get(f"decoding-{some}"), cells.get(f"training-{some}")
        if decoding is not None:
            disk = f"{decoding['disk_bytes'] / 2**30:.2f} GiB"
            rows.append(
                [some, "decoding", f"{decoding['pictures_per_s']:.0f}", f"{decoding['peak_bytes'] / 2**20:.0f}", disk]
            )
        for kind in ("folder", "in memory") if training is not None else ():
            one = training[kind]
            rows.append([some, kind, f"{one['images_per_s']:.1f}", f"{one['peak_bytes'] / 2**20:.0f}", ""])
    return table(["pictures", "what", "pictures/s", "peak MiB", "disk"], rows)


if __name__ == "__main__":
    main()
