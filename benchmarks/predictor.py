"""Does the latency predictor hold on archs it has not seen? Measured tables first, then every predictor on them.

Spaces `resnet` (widths 8 to 64, depths 1 to 3), `pruned` (the pretrained CIFAR-10 ResNet-20) and `mobilenet` (widths 8
to 64, depths 1 to 3, expansions 1 to 6), at 3 x 32 x 32; every runtime, float32 and int8, one thread. 50 archs are
fitted, chosen before anything is measured for how much they tell of 512 others; 60 further ones, drawn at random, are
predicted. What is predicted is the 5th percentile of one call.

Cells: `SPACE-RUNTIME-PRECISION`, the measured latencies and memory of 110 archs (files have untrained weights, which
changes no time), those of `mobilenet` in a folder of their own. Everything else is computed from them, by `--table`
alone: nothing is measured twice. `--profiled` adds `predictor_profiled`, cells of what the tables that `edgekd profile
this-computer` left here predict of the 60.

Run: EDGEKD_DATA=... OMP_NUM_THREADS=1 python benchmarks/predictor.py [--only resnet] [--table]. The files of a space
are 660 conversions; --tiny takes a few minutes and proves nothing.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from cells import ROOT, Cells, arguments, data_folder, folders, opened, patiently, table, write_yaml
from cifar_search import task, teacher
from scipy import optimize, stats

NAME = "predictor"
RUNTIMES = {"litert": "litert/xnnpack", "onnxruntime": "onnxruntime/cpu", "openvino": "openvino/cpu"}
PRECISIONS = ("float32", "int8")
SPACES = ("resnet", "pruned", "mobilenet")
OTHER_SPACE = {"resnet": "pruned", "pruned": "resnet"}
PRIOR_OF = {"litert": "onnxruntime", "onnxruntime": "litert", "openvino": "litert"}
BATCH, FEW, CANDIDATES = 10, 10, 512
Predict = Callable[[Sequence[Any]], Any]


def settings(options: argparse.Namespace, space: str) -> dict[str, Any]:
    """What changes results."""
    common = {
        "seed": options.seed,
        "tiny": options.tiny,
        "fitted": 8 if options.tiny else 50,
        "held_out": 4 if options.tiny else 60,
    }
    if space == "mobilenet":
        return {**common, "mobilenet": {"width": [8, 64], "depth": [1, 3], "expansion": [1, 6]}}
    return {**common, "resnet": {"width": [8, 64], "depth": [1, 3]}, "pruned": {"ratios": [0.25, 0.5, 0.75, 1.0]}}


def cells_of(options: argparse.Namespace, space: str, results: Path) -> Cells:
    """Where a space's tables are kept; those of two spaces lie together, by settings of both."""
    return Cells(f"{NAME}_{space}" if space == "mobilenet" else NAME, results, settings(options, space))


def read(options: argparse.Namespace, space: str, folder: Path) -> Any:
    """A project of that space, with its parts built."""
    from edgekd.project import read_project

    chosen, described = settings(options, space), teacher()
    if space == "pruned":
        model = {
            "family": "pruned",
            "model": f"{ROOT / 'examples' / 'cifar_resnet.py'}:resnet20",
            "weights": str(data_folder() / "cifar-resnets" / "resnet20.npz"),
            **chosen["pruned"],
        }
    else:
        model = {"family": space, "space": chosen[space]}
    target = {"schema": "edgekd.target/1", "device": "this-computer", "backends": [RUNTIMES["litert"]]}
    write_yaml(folder / "any.yaml", target)
    content = {
        "schema": "edgekd.project/1",
        "task": {**task(True), "mean": described["mean"], "std": described["std"]},
        "teacher": described,
        "student": model,
        "target": "any",
        "recipe": [{"quantize": {"precision": "float32"}}],
    }
    return read_project(write_yaml(folder / "project.yaml", content))


def chosen_archs(options: argparse.Namespace, space: str, folder: Path) -> list[tuple[int, str]]:
    """Indices into the space, and whether each is fitted or held out."""
    from edgekd.measure.prediction.choosing import choose_to_measure

    project, asked = read(options, space, folder), settings(options, space)
    size = project.family.space(project.task.spec).size
    drawn = random.Random(options.seed).sample(range(size), min(size, CANDIDATES + asked["held_out"]))
    held_out, candidates = drawn[: asked["held_out"]], drawn[asked["held_out"] :]
    places = choose_to_measure(networks_of(options, space, candidates, folder), asked["fitted"])
    return [*((candidates[at], "fitted") for at in places), *((index, "held out") for index in held_out)]


def make_files(
    options: argparse.Namespace, space: str, indices: Sequence[int], runs: Path, part: int
) -> dict[str, str]:
    """Every file of some archs that isn't there yet; what can't be made, with the reason."""
    import torch

    from edgekd.agent.fingerprint import fingerprint
    from edgekd.artefacts import Backend
    from edgekd.devices._protocol import Fingerprint
    from edgekd.export.converter import Converter
    from edgekd.ir.backends import asked_of_agent
    from edgekd.ir.numerics import Precision
    from edgekd.ir.plan import Candidate, CompressionPlan
    from edgekd.search.trials.untrained import UntrainedBuilder

    torch.set_num_threads(1)
    project, refused = read(options, space, runs / f"worker{part}"), {}
    axes, here = project.family.space(project.task.spec), Fingerprint.model_validate(fingerprint(asked_of_agent()))
    with Converter(runs / f"worker{part}" / "convert") as converter:
        builder = UntrainedBuilder(project.task, project.family, converter, project.export, here, options.seed)
        for index in indices:
            for runtime, name in RUNTIMES.items():
                for precision in PRECISIONS:
                    place = runs / "files" / space / f"{index}-{runtime}-{precision}"
                    if (place / "done").is_file():
                        continue
                    candidate = Candidate(
                        family=project.family.name,
                        arch=axes.at(index),
                        plan=CompressionPlan(precision=Precision(precision)),
                        backend=Backend.model_validate(name),
                    )
                    made = builder.make(candidate, place / "model")
                    if made.artefact is None:
                        refused[place.name] = made.detail
                    else:
                        (place / "done").touch()
    return refused


def all_files(options: argparse.Namespace, space: str, indices: Sequence[int], runs: Path) -> None:
    """On as many processes as were asked for. Ends the script where a file can't be made."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
        parts = [
            pool.submit(make_files, options, space, indices[part :: options.jobs], runs, part)
            for part in range(options.jobs)
        ]
        refused = {name: why for done in as_completed(parts) for name, why in done.result().items()}
    if refused:
        raise SystemExit(f"{space}: {refused}")


def measured(
    options: argparse.Namespace,
    space: str,
    runtime: str,
    precision: str,
    archs: Sequence[tuple[int, str]],
    runs: Path,
) -> Mapping[str, Any]:
    """One table: every arch's file timed, in interleaved batches of ten."""
    from edgekd.artefacts import Backend
    from edgekd.devices._protocol import Job, MeasurePlan
    from edgekd.measure.contention import DriftBaseline, measure_uncontended
    from edgekd.measure.figures import figures_of

    backend = Backend.model_validate(RUNTIMES[runtime])
    plan = MeasurePlan(processes=3, rounds=5, round_ms=12.0, warmup_ms=40.0, seed=options.seed)
    order = list(archs)
    random.Random(options.seed).shuffle(order)
    rows, drifts, drift_baseline, session = [], [], DriftBaseline(), opened()
    try:
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            jobs = [Job(artefact=_file(runs, space, index, runtime, precision), backend=backend) for index, _ in batch]
            found = patiently(lambda jobs=jobs: measure_uncontended(session, jobs, plan, drift_baseline))
            for (index, role), measurement in zip(batch, found, strict=True):
                figures = {figure.metric: figure.value for figure in figures_of(measurement)}
                rows.append(
                    {
                        "index": index,
                        "role": role,
                        "p5_us": round(figures["latency.p5"], 4),
                        "p50_us": round(figures["latency.p50"], 4),
                        "memory_bytes": int(figures["memory.model"]),
                        "file_bytes": jobs[len(rows) % BATCH].artefact.size_bytes,
                    }
                )
            drifts += [one.sentinel.drift for one in found[:1] if one.sentinel]
            print(f"  {space} {runtime} {precision} {len(rows)}/{len(order)}", file=sys.stderr, flush=True)
    finally:
        session.close()
    place = {index: at for at, (index, _) in enumerate(archs)}  # the most telling first
    return {"rows": sorted(rows, key=lambda row: place[row["index"]]), "sentinel_drift": max(drifts, default=None)}


def _file(runs: Path, space: str, index: int, runtime: str, precision: str) -> Any:
    from edgekd.artefacts import Artefact

    folder = runs / "files" / space / f"{index}-{runtime}-{precision}"
    return Artefact.of(next(path for path in folder.glob("model.*") if path.suffix != ".bin"))


def networks_of(options: argparse.Namespace, space: str, indices: Sequence[int], folder: Path) -> list[Any]:
    """Kernels of archs. What a file has beside them is the same for all, and so part of a constant."""
    from edgekd.students.analysis import kernels_of_arch

    project = read(options, space, folder)
    axes = project.family.space(project.task.spec)
    return [kernels_of_arch(project.family, axes.at(index), project.task.spec) for index in indices]


def macs_alone(networks: Sequence[Any], times: Any) -> Predict:
    """Multiply-adds times a constant."""
    macs = np.array([sum(kernel.macs for kernel in network) for network in networks], dtype=float)
    rate = float(np.exp(np.median(np.log(times / macs))))
    return lambda others: np.array([rate * sum(kernel.macs for kernel in network) for network in others])


def roofline(networks: Sequence[Any], times: Any) -> Predict:
    """Of each kernel the slower of computing and moving, at the rates that fit best, and a cost a kernel."""
    rows = [np.array([(k.macs, k.reads + k.writes + k.weights) for k in network], dtype=float) for network in networks]

    def expected(rates: Any, rows: Sequence[Any]) -> Any:
        compute, move, start = np.exp(rates)
        return np.array([np.maximum(r[:, 0] * compute, r[:, 1] * move).sum() + start * len(r) for r in rows])

    def loss(rates: Any) -> float:
        return float(np.square(np.log(expected(rates, rows) / times)).sum())

    found = optimize.minimize(loss, np.log([2e-5, 2e-4, 0.5]), method="Nelder-Mead", options={"maxiter": 2000}).x
    return lambda others: expected(
        found,
        [np.array([(k.macs, k.reads + k.writes + k.weights) for k in network], dtype=float) for network in others],
    )


def boosting(networks: Sequence[Any], times: Any) -> Predict:
    """Gradient boosting on what is counted of the whole, as many predictors have it; no prior."""
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(random_state=0, n_estimators=300, max_depth=3, learning_rate=0.05)
    model.fit([counted(network) for network in networks], np.log(times))
    return lambda others: np.exp(model.predict([counted(network) for network in others]))


def counted(network: Any) -> list[float]:
    """Logarithms of sums over a network, and its largest kernels."""
    sums = [sum(getattr(k, name) for k in network) for name in ("macs", "reads", "writes", "weights", "inputs")]
    most = [max(getattr(k, name) for k in network) for name in ("macs", "reads", "outputs")]
    return [float(np.log(value)) for value in (*sums, *most, len(network))]


def judged(truth: Any, found: Any) -> dict[str, float]:
    """Shares within 5 and 10 %, median error, rank correlation."""
    errors = np.abs(found / truth - 1.0)
    return {
        "within_10": float(np.mean(errors <= 0.10)),
        "within_5": float(np.mean(errors <= 0.05)),
        "median": float(np.median(errors)),
        "spearman": float(stats.spearmanr(truth, found).statistic),
    }


def memory_judged(networks: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What models add to memory, fitted and held out as latency is: bytes, and the share the interval held."""
    from edgekd.measure.memory import fit_memory, predict_memory

    read = [(n, float(row["memory_bytes"]), row["role"]) for n, row in zip(networks, rows, strict=True)]
    known = [(n, found) for n, found, role in read if role == "fitted"]
    fit = fit_memory([n for n, _ in known], [found for _, found in known])
    others = [(predict_memory(fit, n), found) for n, found, role in read if role == "held out"]
    return {
        "median": float(np.median([abs(at - found) for (at, _, _), found in others])),
        "inside": [least <= found <= most for (_, least, most), found in others],
    }


def profiled(space: str, runtime: str, precision: str, held_out: Sequence[int], runs: Path) -> dict[str, Any]:
    """What the tables of a profile of this computer predict of a space's files that are held out."""
    from edgekd.errors import MissingError
    from edgekd.measure.prediction.predict import predict_models
    from edgekd.predicting import asked_of

    known = profile_of_this_computer()
    files = [_file(runs, space, index, runtime, precision).path for index in held_out]
    asked, _ = asked_of(files, [RUNTIMES[runtime]], known.tables)
    facts = {"evidence": "predicted", "networks": 0, "rows": [{"index": index} for index in held_out]}
    try:
        predictions = predict_models("this-computer", known.fingerprint, 1, known.tables, asked).rows
    except MissingError as error:  # of none of them
        return {**facts, "detail": str(error)}
    for row, found in zip(facts["rows"], predictions, strict=True):
        low = next((figure for figure in found.figures if figure.metric == "latency.p5"), None)
        row |= {"p5_us": low.value, "least_us": low.lower, "most_us": low.upper} if low else {"why": found.detail}
    return {**facts, "networks": next(row.held_out.samples for row in predictions if row.held_out)}


def profile_of_this_computer() -> Any:
    """Its tables as it is now. Raises MissingError where there is none."""
    from edgekd.predicting import tables_for

    return tables_for("this-computer", 1)


def asked_of_profile(options: argparse.Namespace, space: str) -> dict[str, Any]:
    """What decides what a profile tells: its rows, and what is asked about."""
    tables = sorted(table.digest() for table in profile_of_this_computer().tables)
    return {**settings(options, space), "tables": tables}


def of_profile(cell: Mapping[str, Any], truth: Mapping[int, float]) -> dict[str, Any]:
    """How a profile does on them, its intervals included."""
    measured = [row for row in cell["rows"] if "p5_us" in row]
    lows = np.array([truth[row["index"]] for row in measured])
    inside = [row["least_us"] <= us <= row["most_us"] for row, us in zip(measured, lows, strict=True)]
    found = {"measured": len(measured), "of": len(cell["rows"]), "networks": cell["networks"], "inside": inside}
    return {**found, **judged(lows, np.array([row["p5_us"] for row in measured]))} if measured else found


def evaluated(options: argparse.Namespace, cells: Mapping[str, Any], runs: Path) -> dict[str, Any]:
    """Every predictor on every finished table; ours also from ten readings with a prior, and from the other space."""
    from edgekd.measure.prediction.predictor import fit_predictor
    from edgekd.store.predicted import Observation

    found: dict[str, Any] = {}
    fitted: dict[str, Any] = {}
    for name, cell in cells.items():
        space, rows = name.split("-")[0], cell["rows"]
        networks = networks_of(options, space, [row["index"] for row in rows], runs / "choosing")
        sides = {
            role: [(n, row["p5_us"]) for n, row in zip(networks, rows, strict=True) if row["role"] == role]
            for role in ("fitted", "held out")
        }
        (known, times), (others, truth) = (
            (tuple(n for n, _ in side), np.array([us for _, us in side])) for side in sides.values()
        )
        observations = [Observation(kernels=n, p5_us=float(us)) for n, us in zip(known, times, strict=True)]
        mine = fit_predictor(observations)
        found[name] = {
            "memory": memory_judged(networks, rows),
            "edgekd": of_predictor(mine, others, truth),
            **{
                words: judged(truth, make(known, times)(others))
                for words, make in (("macs", macs_alone), ("roofline", roofline), ("boosting", boosting))
            },
        }
        fitted[name] = mine, observations, others, truth
    for name, (_, observations, others, truth) in fitted.items():
        space, runtime, precision = name.split("-")
        first = fitted.get(f"{space}-{PRIOR_OF[runtime]}-{precision}")
        if first is not None:
            few = fit_predictor(observations[:FEW], prior=first[0])
            found[name]["from_ten"] = of_predictor(few, others, truth)
        other_devices = fitted.get(f"{OTHER_SPACE[space]}-{runtime}-{precision}") if space in OTHER_SPACE else None
        if other_devices is not None:
            found[name]["elsewhere"] = of_predictor(other_devices[0], others, truth)
    return found


def of_predictor(predictor: Any, networks: Sequence[Any], truth: Any) -> dict[str, Any]:
    """How a fitted one of ours does on networks it has not seen, its intervals included."""
    predicted = predictor.predict(networks)
    inside = [p.least_us <= us <= p.most_us for p, us in zip(predicted, truth, strict=True)]
    return {**judged(truth, np.array([p.p5_us for p in predicted])), "inside": inside}


def printed(found: Mapping[str, Any]) -> str:
    """A table a space, a row a runtime and precision; errors in percent."""
    parts, moved = list[str](), []
    for space in SPACES:
        rows = []
        for name, row in found.items():
            if name.startswith(f"{space}-"):
                mine, ten = row["edgekd"], row.get("from_ten")
                start = [name.removeprefix(f"{space}-"), *_errors(mine), f"{ten['spearman']:.3f}" if ten else "-"]
                rivals = [f"{100 * row[other]['within_10']:.0f}" for other in ("macs", "roofline", "boosting")]
                rows.append([*start, f"{row['memory']['median'] / 1024:.0f}", *rivals])
                moved += [[name, *_errors(row["elsewhere"])]] if "elsewhere" in row else []
        if rows:
            parts.append(table([space, *_HEAD, "ten", "KiB", "macs", "roofline", "boosting"], rows))
    held, memory = ([inside for row in found.values() for inside in row[of]["inside"]] for of in ("edgekd", "memory"))
    shares = [f"{100 * np.mean(inside):.1f} %" for inside in (held, memory)]
    parts.append(
        f"of {len(held)}, 90 % intervals held {shares[0]}, those of memory {shares[1]}\n"
        "10 %: share within 10 %; err: median error, %; rho: Spearman; in: held by the\n"
        "90 % interval, %; ten: Spearman from ten readings with another runtime as prior;\n"
        "KiB: median error of memory; then shares of latencies within 10 % by others"
    )
    return "\n\n".join(
        [*parts, table(["table", *_HEAD], moved, "the same networks by what was fitted to the other space alone")]
    )


_HEAD = ("10 %", "err", "rho", "in")


def _errors(row: Mapping[str, Any]) -> list[str]:
    within, median, rank, inside = (row["within_10"], row["median"], row["spearman"], float(np.mean(row["inside"])))
    return [f"{100 * within:.0f}", f"{100 * median:.1f}", f"{rank:.3f}", f"{100 * inside:.0f}"]


def printed_profiles(cells: Mapping[str, Any], profiles: Mapping[str, Any]) -> str:
    """A row a table that a profile was asked of."""
    rows = []
    for name, cell in profiles.items():
        found = of_profile(cell, {row["index"]: row["p5_us"] for row in cells[name]["rows"]})
        errors = _errors(found) if found["measured"] else ["-"] * 4
        rows.append([name, found["networks"], f"{found['told']}/{found['of']}", *errors])
    note = "the same networks by what `edgekd profile` measured: of so many networks,\nhow many of the 60 it tells of"
    return table(["table", "from", "measured", *_HEAD], rows, note)


def made(options: argparse.Namespace, spaces: Sequence[str], results: Path, runs: Path) -> None:
    """Files, and cells of what they take, that are not there yet; what a profile says of them where that is asked."""
    for space in spaces:
        archs = chosen_archs(options, space, runs / "choosing")
        all_files(options, space, [index for index, _ in archs], runs)
        if options.files:
            continue
        for runtime in RUNTIMES:
            for precision in PRECISIONS:
                name, of = f"{space}-{runtime}-{precision}", (space, runtime, precision)
                cells = cells_of(options, space, results)
                cells.cell(name, lambda of=of, archs=archs: measured(options, *of, archs, runs))
                if options.profiled:
                    held_out = [index for index, role in archs if role == "held out"]
                    asked = Cells(f"{NAME}_profiled", results, asked_of_profile(options, space))
                    asked.cell(name, lambda of=of, held_out=held_out: profiled(*of, held_out, runs))


def main() -> None:
    """Make what is missing."""
    parser = arguments(__doc__, NAME)
    parser.add_argument("--only", choices=SPACES)
    parser.add_argument("--jobs", type=int, default=2, help="processes that make files")
    parser.add_argument("--files", action="store_true", help="make the files, and measure nothing")
    parser.add_argument("--profiled", action="store_true", help="ask this computer's profile too")
    options = parser.parse_args()
    results, runs = folders(options, NAME)
    if not options.table:
        made(options, (options.only,) if options.only else SPACES, results, runs)
    if options.files:
        return
    kept = [cells_of(options, space, results) for space in ("resnet", "mobilenet")]  # `pruned` lies with `resnet`
    cells = {name: cell for each in kept for name, cell in each.all().items()}
    print(printed(evaluated(options, cells, runs)))
    profiles = {path.stem: json.loads(path.read_text()) for path in sorted((results / f"{NAME}_profiled").glob("*"))}
    if profiles:
        print(f"\n{printed_profiles(cells, profiles)}")


if __name__ == "__main__":
    main()
