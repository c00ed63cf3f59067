"""Training speed on CIFAR-shaped random data, images per second, one student (ResNet-8) in one precision and layout.

    bare      a plain PyTorch cross-entropy loop: no augmentation, no teacher, samples already normalised
    ce        edgekd's loop on labels alone: crops, flips, the running average of weights
    kd, ...   the same with a loss that learns from ResNet-56's cached logits, or from its cached activations
    online    the same with `kd` and the teacher asked about every batch, in the layout and precision that it is
              fastest in (`cache: false`); random weights: only the time counts

Each is timed from outside over two whole epochs: setting up, checkpoints and all. Rounds are interleaved. One ratio
compares the fastest rounds, which other work on the machine disturbs least; the other is the median of the ratios
within each round. Where the two differ much, the machine was busy. The online teacher, slow as it is, is asked about a
quarter of the samples, twice.

Run: python benchmarks/bench_training.py [--samples 8192] [--rounds 6] [--only kd dkd dist]. Twenty minutes on two
idle cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import table, versions
from torch import Tensor, nn

from edgekd import plugins
from edgekd.agent.fingerprint import fingerprint
from edgekd.distill.augment.chain import Augment
from edgekd.distill.autotune import Execution, laid_out, probe
from edgekd.distill.layer_matching import Networks, match_layers
from edgekd.distill.loop import Plan, TrainingData, train
from edgekd.distill.losses.combined import Combined
from edgekd.distill.objective import Objective
from edgekd.distill.teacher_source import CachedTeacher, TeacherSource, live_teacher
from edgekd.ir.backends import asked_of_agent
from edgekd.ir.space import Arch
from edgekd.records import digest_json
from edgekd.students.points import layout_of
from edgekd.students.resnet import ResNet
from edgekd.tasks._protocol import HeadSpec, InputSpec, TaskSpec
from edgekd.teachers.cache import CachedOutputs

RESULT = Path(__file__).parent / "results" / "training.json"
CPU, VIEWS, EPOCHS, ONLINE_ROUNDS = torch.device("cpu"), 2, 2, 2
SPEC = TaskSpec(
    name="random",
    input=InputSpec(shape=(3, 32, 32), mean=(125.0,) * 3, std=(63.0,) * 3),
    head=HeadSpec(classes=10),
    data=digest_json("random"),
    flip=True,
)
REFERENCE = {"ce": "bare", "kd": "ce", "dkd": "ce", "dist": "ce"}  # within 3 %; all others with `kd`: within 25 %


def resnet(depth: int) -> nn.Module:
    """Widths 16, 32, 64; depth 1 is ResNet-8, depth 9 is ResNet-56."""
    arch = Arch.of({**{f"width{s}": 8 * 2**s for s in (1, 2, 3)}, **{f"depth{s}": depth for s in (1, 2, 3)}})
    return ResNet().build(arch, SPEC)


@dataclass(frozen=True)
class RandomTeacher:
    """A ResNet-56 that knows nothing."""

    module: nn.Module
    name: str = "random"
    classes: int = 10

    def digest(self) -> str:
        """Of its name."""
        return digest_json(self.name)

    def network(self) -> nn.Module:
        """The module."""
        return self.module

    def prepared(self, batch: Tensor) -> Tensor:
        """Normalised."""
        return (batch - 125.0) / 63.0

    def rows(self, answers: Tensor) -> Tensor:
        """Logits."""
        return answers.float()

    def logits(self, batch: Tensor) -> Tensor:
        """Never asked: the network is."""
        raise NotImplementedError


@dataclass(frozen=True)
class Data:
    """Samples, and what the teacher said to them."""

    raw: Tensor
    normalised: Tensor
    labels: Tensor
    stored: CachedOutputs
    networks: Networks


@contextmanager
def answering(data: Data, name: str, objective: Objective, teacher: RandomTeacher) -> Iterator[TeacherSource | None]:
    """Where a training gets the teacher's answers from."""
    if name == "online":
        with live_teacher(teacher, SPEC.input.shape, (), ("float32", "bfloat16")) as asked:
            yield asked
    elif name == "ce":
        yield None
    else:
        wanted = {point.name: data.stored.features[point.name] for point in objective.teacher_points}
        yield CachedTeacher(CachedOutputs(data.stored.logits, wanted))


def ours(data: Data, name: str, execution: Execution, folder: Path, teacher: RandomTeacher) -> float:
    """edgekd's own loop; images per second of the whole call."""
    loss = Combined.model_validate({"kd" if name == "online" else name: {}})
    count = len(data.labels) // (4 if name == "online" else 1)
    plan = Plan(
        digest=digest_json(["bench", name]),
        epochs=EPOCHS,
        batch_size=128,
        learning_rate=0.01,
        momentum=0.9,
        weight_decay=5e-4,
        warmup_epochs=0.5,
        average=0.999,
        precisions=(execution.precision,),
        seed=0,
    )
    begun = time.perf_counter()
    module = resnet(1)
    sites = [site for named in loss.features if not isinstance(site := match_layers(*named, data.networks), str)]
    objective = Objective.built(loss, sites, module, data.networks.student, 0) if sites else Objective.of(loss)
    with answering(data, name, objective, teacher) as answers:
        training_data = TrainingData(
            inputs=data.raw[:count],
            labels=data.labels[:count],
            spec=SPEC.input,
            view=Augment().view(SPEC),
            view_seeds=tuple(range(VIEWS)),
            teacher=answers,
            classes=10,
        )
        train(module, training_data, objective, plan, folder, device=CPU)
    return EPOCHS * count / (time.perf_counter() - begun)


def bare(data: Data, execution: Execution) -> float:
    """The loop a person writes first; images per second of the whole call."""
    begun = time.perf_counter()
    student = laid_out(resnet(1).train(), CPU, execution.memory_format)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(data.labels)).split(128):
            seen = data.normalised[batch].contiguous(memory_format=execution.memory_format)
            with torch.autocast("cpu", torch.bfloat16, execution.precision == "bfloat16"):
                logits = student(seen)
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits.float(), data.labels[batch]).backward()
            optimizer.step()
    return EPOCHS * len(data.labels) / (time.perf_counter() - begun)


def made(samples: int, folder: Path, teacher: RandomTeacher) -> Data:
    """Random samples and answers, on the disk as the cache keeps them."""
    rng = np.random.default_rng(0)

    def stored(name: str, kind: type, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
        kept = np.memmap(folder / f"{name}.{kind.__name__}", kind, "w+", shape=(VIEWS, samples, *shape))
        for view in kept:
            view[:] = rng.standard_normal(view.shape, np.float32)
        return kept

    student, taught = layout_of(resnet(1), SPEC.input), layout_of(teacher.module, SPEC.input)
    points = [*taught.stages, taught.at("penultimate"), taught.at("logits")]
    raw = torch.from_numpy(rng.integers(0, 256, (samples, 3, 32, 32)).astype(np.uint8))
    return Data(
        raw=raw,
        normalised=(raw.float() - 125) / 63,
        labels=torch.from_numpy(rng.integers(0, 10, samples)),
        stored=CachedOutputs(
            stored("logits", np.float32, (10,)),
            {point.name: stored(point.name, np.float16, point.shape) for point in points},
        ),
        networks=Networks(student, taught, teacher.module, samples, 10),
    )


def timed(
    names: Sequence[str], data: Data, rounds: int, execution: Execution, folder: Path, teacher: RandomTeacher
) -> dict[str, list[float]]:
    """Images per second of every variant in every round."""
    figures: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        order = list(figures) if number % 2 else list(reversed(figures))  # none always goes first
        for name in order:
            if name == "online" and number >= ONLINE_ROUNDS:
                continue
            if name == "bare":
                figures[name].append(bare(data, execution))
            else:
                figures[name].append(ours(data, name, execution, folder / f"{name}-{number}", teacher))
    return figures


def chosen(every: Sequence[str], only: Sequence[str] | None) -> list[str]:
    """Everything, or some and what they are compared with."""
    if only is None:
        return list(every)
    wanted = {"bare"}
    for name in only:
        while name not in wanted:
            wanted.add(name)
            name = REFERENCE.get(name, "kd")
    return [name for name in every if name in wanted]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=6)
    every = ["bare", *plugins.names("edgekd.losses"), "online"]
    parser.add_argument("--only", nargs="+", choices=every, help="these and what they are compared with")
    parser.add_argument("--out", type=Path, help="default: results/training.json; with --only, nothing is written")
    options = parser.parse_args()
    out = options.out or (None if options.only else RESULT)
    torch.manual_seed(0)
    execution = probe(resnet(1), SPEC.input, 128, CPU)
    teacher = RandomTeacher(resnet(9).eval().requires_grad_(False))
    with tempfile.TemporaryDirectory() as scratch:
        data = made(options.samples, Path(scratch), teacher)
        rounds = timed(chosen(every, options.only), data, options.rounds, execution, Path(scratch), teacher)
    fastest = {name: max(figures) for name, figures in rounds.items()}
    medians = {name: statistics.median(figures) for name, figures in rounds.items()}
    ratios: dict[str, dict[str, float]] = {}
    for name in rounds:
        if name != "bare":
            other = REFERENCE.get(name, "kd")
            paired = [own / others for own, others in zip(rounds[name], rounds[other], strict=False)]
            ratios[f"{name} / {other}"] = {
                "fastest": fastest[name] / fastest[other],
                "paired": statistics.median(paired),
            }
    print(f"{execution.precision}, {'channels last' if execution.channels_last else 'channels first'}")
    rows = []
    for name, figures in rounds.items():
        over, ratio = next(((k.split(" / ")[1], r) for k, r in ratios.items() if k.split(" / ")[0] == name), ("", None))
        shown = (f"{ratio['fastest']:.3f}", f"{ratio['paired']:.3f}") if ratio else ("", "")
        rows.append([name, f"{fastest[name]:,.0f}", f"{medians[name]:,.0f}", len(figures), over, *shown])
    print(table(["", "fastest", "median", "rounds", "over", "fastest", "paired"], rows, "images per second"))
    result = {
        "schema": "edgekd.benchmark/1",
        "benchmark": "training",
        "evidence": "measured",
        "machine": fingerprint(asked_of_agent()),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "samples": options.samples,
        "execution": execution.model_dump(mode="json"),
        "images_per_s": rounds,
        "ratios": ratios,
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
