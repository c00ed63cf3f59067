"""One trunk with three heads beside three models with one each, on generated pictures of shapes.

The same family, arch, recipe, epochs and pictures; only the heads asked for differ. Each is a whole `edgekd distill`
with three seeds: trained on labels, quantized to int8, certified, and exported for three runtimes at once with parity.
Accuracy is the exported file's own, on 1,000 test pictures: top-1 of `scene`, mAP of `things` (COCO's), mIoU of `mask`.
Is the student with three heads within two points of each single one, at 45 % of their summed latency?

Latency is measured besides for every runtime and precision in one interleaved batch: all four networks, untrained, as
time does not depend on what the weights are.

Cells: `HEADS-SEED`, then `latency`. Run: python benchmarks/many_heads.py [--table]. 50 minutes on two idle cores;
--tiny takes a few minutes and proves nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from cells import Cells, arguments, edgekd, folders, opened, patiently, table, write_yaml

from edgekd.artefacts import Backend
from edgekd.devices._protocol import Job, MeasurePlan
from edgekd.ir.support import COMPARED
from edgekd.measure.figures import figures_of
from edgekd.project import read_project

NAME = "many_heads"
HEADS = {"scene": "top1", "things": "mAP", "mask": "mIoU"}
ASKED = {"joint": tuple(HEADS), **{name: (name,) for name in HEADS}}
BACKENDS = ("litert/xnnpack", "onnxruntime/cpu", "openvino/cpu")
SEEDS = (0, 1, 2)
ALLOWED_POINTS, ALLOWED_SHARE = 2.0, 0.45


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What changes results."""
    if options.tiny:
        return {"train": 300, "test": 100, "epochs": 2, "depth": 1}
    return {"train": 4000, "test": 1000, "epochs": 20, "depth": 3}


def project(options: argparse.Namespace, heads: tuple[str, ...], folder: Path) -> Path:
    """A student for these heads, and beside it a target that every one of them should meet."""
    chosen = settings(options)
    limits = {"latency": {"p95": "20 ms"}, "size": {"file": "2 MiB"}}
    shared = {"schema": "edgekd.target/1", "device": "this-computer", "threads": 1}
    write_yaml(folder / "camera.yaml", {**shared, "backends": list(BACKENDS), "budgets": limits})
    content = {
        "schema": "edgekd.project/1",
        "task": {"kind": "shapes", "train": chosen["train"], "test": chosen["test"], "heads": list(heads)},
        "student": {
            "family": "resnet",
            "space": {"widths": [16, 32, 64], "depths": [chosen["depth"]] * 3, "stem_stride": [2]},
        },
        "target": "camera",
        "recipe": [
            {"distill": {"loss": "ce", "epochs": chosen["epochs"], "batch_size": 64, "learning_rate": 0.05}},
            {"quantize": {"precision": "int8"}},
        ],
        "export": {"input": "uint8", "formats": ["onnx", "tflite", "openvino"]},
    }
    return write_yaml(folder / "project.yaml", content)


def certified(options: argparse.Namespace, asked: str, seed: int, folder: Path) -> dict[str, Any]:
    """One `edgekd distill`, and one `edgekd verify` of its bundle in a process of its own."""
    from edgekd.bundle.verify import read_bundle

    written = project(options, ASKED[asked], folder)
    code, _ = edgekd("distill", written, "--run", folder / "run", "--seed", str(seed))
    found, _ = read_bundle(folder / "run" / "bundle")
    verified, _ = edgekd("verify", folder / "run" / "bundle")
    heads = ASKED[asked]
    parts = found.accuracy.parts or {f"{heads[0]} {HEADS[heads[0]]}": found.accuracy.value}
    others = {str(other.format): other.parity for other in found.others}
    return {
        "exit_code": code,
        "certified": found.certified,
        "verify_exit_code": verified,
        "accuracy": {name: parts[f"{name} {HEADS[name]}"] for name in heads},
        "certificate": found.model_dump(mode="json"),
        "parity": {
            str(found.format): found.parity.model_dump(mode="json"),
            **{name: parity.model_dump(mode="json") if parity else None for name, parity in others.items()},
        },
    }


def latencies(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Each network on each runtime at each precision, in one batch."""
    from edgekd.export.converter import Converter
    from edgekd.ir.plan import Candidate, CompressionPlan
    from edgekd.search.trials.untrained import UntrainedBuilder

    session, jobs, refused = opened(), dict[str, Job](), dict[str, str]()
    try:
        with Converter(folder / "convert") as converter:
            for asked, heads in ASKED.items():
                read = read_project(project(options, heads, folder / asked))
                arch = read.family.space(read.task.spec).at(0)
                builder = UntrainedBuilder(
                    read.task, read.family, converter, read.export, session.describe(), options.seed
                )
                for name in BACKENDS:
                    for precision in COMPARED:
                        backend, key = Backend.model_validate(name), f"{name} {precision.value} {asked}"
                        plan = CompressionPlan(precision=precision)
                        candidate = Candidate(family="resnet", arch=arch, plan=plan, backend=backend)
                        made = builder.make(candidate, folder / key.replace("/", "-").replace(" ", "-") / "model")
                        if made.artefact is None:
                            refused[key] = f"{made.outcome.value} {made.detail}"
                        else:
                            jobs[key] = Job(artefact=made.artefact, backend=backend)
        plan = MeasurePlan(processes=3 if options.tiny else 5, seed=options.seed)
        measured = dict(zip(jobs, patiently(lambda: session.measure(list(jobs.values()), plan)), strict=True))
    finally:
        session.close()
    found = {
        key: {figure.metric: figure.model_dump(mode="json") for figure in figures_of(measurement)}
        for key, measurement in measured.items()
    }
    return {"figures": found, "refused": refused}


def shares(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The joint network's p50 over the sum of the single ones', by runtime and precision."""
    found = {}
    for name in BACKENDS:
        for precision in COMPARED:
            rows = [figures.get(f"{name} {precision.value} {asked}") for asked in ASKED]
            if all(rows):
                joint, *single = [row["latency.p50"]["value"] for row in rows if row]
                found[f"{name} {precision.value}"] = joint / sum(single)
    return found


def printed(cells: Cells) -> str:
    """Each head's own metric with three heads and with one; then latencies."""
    found, lines = cells.all(), []
    rows = []
    for name, metric in HEADS.items():
        both = {
            asked: [100 * found[f"{asked}-{seed}"]["accuracy"][name] for seed in SEEDS if f"{asked}-{seed}" in found]
            for asked in ("joint", name)
        }
        if min(map(len, both.values())) < 2:
            continue
        joint, single = both["joint"], both[name]
        rows.append(
            [
                f"{name} {metric}",
                *(f"{mean(figures):.2f} +- {stdev(figures):.2f}" for figures in (joint, single)),
                f"{mean(joint) - mean(single):+.2f}",
            ]
        )
    done = [cell for name, cell in found.items() if name != "latency"]
    lines.append(
        table(
            ["int8 file, test, %", "three heads", "one head", "points"],
            rows,
            f"{sum(cell['certified'] for cell in done)} of {len(done)} certified, "
            f"{sum(cell['verify_exit_code'] == 0 for cell in done)} of them verified again; "
            f"allowed: {-ALLOWED_POINTS:+g} points",
        )
    )
    if "latency" in found:
        figures = found["latency"]["figures"]
        rows = []
        for key, share in shares(figures).items():
            values = [figures[f"{key} {asked}"]["latency.p50"]["value"] for asked in ASKED]
            rows.append([key, *(f"{value:.0f}" for value in values), f"{share:.0%}"])
        note = f"p50 in us, one thread; allowed: {ALLOWED_SHARE:.0%}"
        lines.append(table(["", *ASKED, "of the sum"], rows, note))
    return "\n\n".join(lines)


def main() -> None:
    """Make what is missing, print the tables."""
    options = arguments(__doc__, NAME).parse_args()
    results, runs = folders(options, NAME)
    cells = Cells(NAME, results, {"seed": options.seed, "tiny": options.tiny, **settings(options)})
    if not options.table:
        cells.cell("latency", lambda: latencies(options, runs / "latency"))
        for seed in SEEDS[:2] if options.tiny else SEEDS:
            for asked in ASKED:
                place = runs / f"{asked}-{seed}"
                cells.cell(f"{asked}-{seed}", lambda a=asked, s=seed, p=place: certified(options, a, s, p))
    print(printed(cells))


if __name__ == "__main__":
    main()
