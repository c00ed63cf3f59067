"""Training speed on CIFAR-shaped random data, images per second, one student (ResNet-8) in one precision and layout.

    cached    edgekd's loop: crops, flips, the teacher's cached answers, the running average of weights
    bare      a plain PyTorch cross-entropy loop: no augmentation, no teacher, samples already normalised
    online    the plain loop with a ResNet-56 teacher answering each batch (random weights: only the time counts)

Each is timed from outside over two whole epochs: setting up, checkpoints and all. Rounds are interleaved. The ratio
compares the fastest rounds, which other work on the machine disturbs least; the ratio of medians stands beside it, and
where the two differ much, the machine was busy. The online loop, slow as it is, gets a quarter of the samples.

Run: python benchmarks/bench_training.py [--samples 8192] [--rounds 8]. Two minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from cells import versions
from torch import nn

from edgekd.agent.fingerprint import fingerprint
from edgekd.distill.augment.chain import Augment
from edgekd.distill.loop import Lesson, Plan, train
from edgekd.distill.losses.combined import Combined
from edgekd.distill.losses.kd import KD
from edgekd.distill.probe import Execution, laid_out, probe
from edgekd.records import digest_json
from edgekd.students._protocol import Arch
from edgekd.students.resnet import ResNet
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec

CPU = torch.device("cpu")
SPEC = TaskSpec(
    name="random",
    input=InputSpec(shape=(3, 32, 32), mean=(125.0,) * 3, std=(63.0,) * 3),
    head=HeadSpec(classes=10),
    data=digest_json("random"),
    flip=True,
)


def resnet(depth: int) -> nn.Module:
    """Widths 16, 32, 64; depth 1 is ResNet-8, depth 9 is ResNet-56."""
    arch = Arch.of({**{f"width{s}": 8 * 2**s for s in (1, 2, 3)}, **{f"depth{s}": depth for s in (1, 2, 3)}})
    return ResNet().build(arch, SPEC)


def cached(data: dict, execution: Execution, folder: Path) -> float:
    """edgekd's own loop; images per second of the whole call."""
    lesson = Lesson(
        inputs=data["raw"],
        labels=data["labels"],
        spec=SPEC.input,
        view=Augment().view(SPEC),
        view_seeds=(0, 1),
        answers=data["answers"],
    )
    plan = Plan(
        digest=digest_json("bench"),
        epochs=2,
        batch_size=128,
        learning_rate=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        warmup_epochs=0.5,
        average=0.999,
        precisions=(execution.precision,),
        seed=0,
    )
    begun = time.perf_counter()
    train(resnet(1), lesson, Combined.model_validate("kd"), plan, folder, device=CPU)
    return 2 * len(lesson.labels) / (time.perf_counter() - begun)


def plain(data: dict, execution: Execution, teacher: nn.Module | None) -> float:
    """The loop a person writes first; images per second of the whole call."""
    begun = time.perf_counter()
    student = laid_out(resnet(1).train(), CPU, execution.memory_format)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    count = len(data["labels"]) // (1 if teacher is None else 4)
    inputs, labels, kd = data["normalised"][:count], data["labels"][:count], KD()
    for _ in range(2):
        for batch in torch.randperm(len(labels)).split(128):
            seen = inputs[batch].contiguous(memory_format=execution.memory_format)
            with torch.autocast("cpu", torch.bfloat16, execution.precision == "bfloat16"):
                logits = student(seen)
                taught = None
                if teacher is not None:
                    with torch.no_grad():
                        taught = teacher(seen)
            loss = nn.functional.cross_entropy(logits.float(), labels[batch])
            if taught is not None:
                loss = 0.1 * loss + 0.9 * kd(logits.float(), taught.float(), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return 2 * count / (time.perf_counter() - begun)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "training.json")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    raw = torch.from_numpy(rng.integers(0, 256, (options.samples, 3, 32, 32)).astype(np.uint8))
    execution = probe(resnet(1), SPEC.input.shape, 128, CPU)
    teacher = laid_out(resnet(9).eval(), CPU, execution.memory_format)
    with tempfile.TemporaryDirectory() as scratch:
        stored = np.memmap(Path(scratch) / "answers", np.float32, "w+", shape=(2, options.samples, 10))
        stored[:] = rng.normal(size=stored.shape)
        data = {
            "raw": raw,
            "normalised": (raw.float() - 125) / 63,
            "labels": torch.from_numpy(rng.integers(0, 10, options.samples)),
            "answers": stored,
        }
        rounds: dict[str, list[float]] = {"bare": [], "cached": [], "online": []}
        for number in range(options.rounds):
            order = ["bare", "cached"] if number % 2 else ["cached", "bare"]  # neither always goes first
            for name in [*order, *(["online"] if number < 2 else [])]:
                if name == "cached":
                    figure = cached(data, execution, Path(scratch) / f"round{number}")
                else:
                    figure = plain(data, execution, teacher if name == "online" else None)
                rounds[name].append(figure)
    medians = {name: statistics.median(figures) for name, figures in rounds.items()}
    fastest = {name: max(figures) for name, figures in rounds.items()}
    ratios = {
        f"cached / {name}": {"fastest": fastest["cached"] / fastest[name], "median": medians["cached"] / medians[name]}
        for name in ("bare", "online")
    }
    print(f"{execution.precision}, {'channels last' if execution.channels_last else 'channels first'}")
    for name, figures in rounds.items():
        print(
            f"{name:<8} fastest {fastest[name]:7,.0f}   median {medians[name]:7,.0f} images/s   {len(figures)} rounds"
        )
    for name, ratio in ratios.items():
        print(f"{name:<16} {ratio['fastest']:.3f} (medians {ratio['median']:.3f})")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "schema": "edgekd.benchmark/1",
        "benchmark": "training",
        "evidence": "measured",
        "machine": fingerprint(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "samples": options.samples,
        "execution": execution.model_dump(mode="json"),
        "images_per_s": rounds,
        "ratios": ratios,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
