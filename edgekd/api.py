"""Python API of edgekd: one function per command.

Each returns a frozen answer, and may be called from a script; the command line does nothing else. Heavy imports happen
inside the functions, so importing this module loads neither torch nor a runtime.

A path may be a str, and a project a mapping of what its file would hold. ``changes`` replace fields of a project, by
their path: ``{"search.finalists": 1, "recipe[0].distill.epochs": 3}``. ``events`` receives progress; left out, it is
shown on stderr, and with `silent` it is not.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field

from edgekd.beginning import begin
from edgekd.checking import CheckAnswer, check_project
from edgekd.devices.catalogue import probe_device as probe
from edgekd.devices.install import install_runtimes as install
from edgekd.errors import MissingError, UnknownName, UsageError
from edgekd.events import Events, SilentEvents, measuring
from edgekd.measure.tables import export_table, import_tables
from edgekd.measure.tables import list_tables as tables
from edgekd.overrides import document_of
from edgekd.progress import shown
from edgekd.records import Digest, Shown
from edgekd.running import RunAnswer, bundle_of, run_project, shortfall_of
from edgekd.store.certificate import Certificate
from edgekd.store.listing import RunsAnswer, RunSummary, list_runs, shortened, trial_rows
from edgekd.store.run import Run
from edgekd.targets.listing import list_devices as devices
from edgekd.targets.listing import list_targets as targets
from edgekd.targets.listing import show_target as target
from edgekd.targets.writing import write_target as new_target
from edgekd.temporary import prefix

if TYPE_CHECKING:
    from edgekd.bundle.verify import VerifyReport
    from edgekd.devices._protocol import MeasurePlan
    from edgekd.distill.losses.catalogue import LossesAnswer
    from edgekd.exporting.answer import ModelExportAnswer
    from edgekd.exporting.naming import Shapes
    from edgekd.measure.benches.bench import BenchReport
    from edgekd.measure.benches.devices import BenchReports
    from edgekd.measure.doctor import DoctorReport
    from edgekd.measure.prediction.predict import PredictReport
    from edgekd.profiling.record import ProfileReport
    from edgekd.search.replay import ReplayReport
    from edgekd.store.comparison import ComparisonAnswer

__all__ = [
    "RunAnswer",
    "RunSummary",
    "RunsAnswer",
    "begin",
    "bench",
    "bench_devices",
    "check",
    "compare",
    "compress",
    "devices",
    "distill",
    "doctor",
    "export",
    "export_model",
    "export_table",
    "import_tables",
    "install",
    "losses",
    "new_target",
    "predict",
    "probe",
    "profile",
    "replay",
    "report",
    "runs",
    "search",
    "silent",
    "tables",
    "target",
    "targets",
    "trials",
    "verify",
]


AnyPath = str | PathLike[str]
AnyProject = AnyPath | Mapping[str, Any]
MemberT = TypeVar("MemberT", bound=Enum)

silent = SilentEvents()
"""``events=silent``: no progress is shown."""


class ExportAnswer(Shown):
    """Bundle of a finished run."""

    schema_: Literal["edgekd.export/1"] = Field(default="edgekd.export/1", alias="schema")
    bundle: Path
    sha256: Digest  # of the certificate, and so of all files it lists
    certificate: Certificate

    @property
    def exit_code(self) -> int:
        """0, or that of the search whose certificate doesn't hold."""
        holds = self.certificate.certified or self.certificate.lesser is not None
        return 0 if holds else shortfall_of(self.certificate).exit_code

    def lines(self) -> list[str]:
        """Format as text lines."""
        lines = [f"bundle     {shortened(self.bundle)}", f"           {self.certificate.summary()}"]
        if not self.certificate.certified:
            lines.append(f"           not certified: {self.certificate.shortfall()}")
        return [*lines, f"digest     {self.sha256}"]


class ReportAnswer(Shown):
    """Page of a run."""

    schema_: Literal["edgekd.report/1"] = Field(default="edgekd.report/1", alias="schema")
    report: Path

    def lines(self) -> list[str]:
        """Format as text lines."""
        return [shortened(self.report)]


def check(
    project: AnyProject,
    *,
    target: AnyPath | None = None,
    changes: Mapping[str, Any] = {},
    events: Events | None = None,
) -> CheckAnswer:
    """Check a project, and show what a run would try. Trains and measures nothing; takes seconds.

    Raises ConfigurationError with every problem found, MissingError, and NothingFits where no network of the space can
    meet the target's size or memory.
    """
    document = document_of(project, changes)
    with shown(events) as watched:
        return check_project(document, _name(target), watched)


def search(
    project: AnyProject,
    *,
    target: AnyPath | None = None,
    run: AnyPath | None = None,
    budget: str | None = None,
    seed: int | None = None,
    changes: Mapping[str, Any] = {},
    events: Events | None = None,
) -> RunAnswer:
    """Search a student for a target, measured in the loop, and certify it. Resumes where ``run`` was begun.

    Raises ConfigurationError, MissingError, Interrupted, and NothingFits where `check` would. If no candidate fits,
    that is an answer with exit code 5, not an error.
    """
    document = document_of(project, changes)
    with shown(events) as watched:
        return run_project("search", document, _name(target), _path(run), budget, seed, watched)


def compress(
    project: AnyProject,
    *,
    target: AnyPath | None = None,
    run: AnyPath | None = None,
    budget: str | None = None,
    seed: int | None = None,
    changes: Mapping[str, Any] = {},
    events: Events | None = None,
) -> RunAnswer:
    """Prune and quantize a user's own model as far as a target needs. Raises as `search` does."""
    document = document_of(project, changes)
    with shown(events) as watched:
        return run_project("compress", document, _name(target), _path(run), budget, seed, watched)


def distill(
    project: AnyProject,
    *,
    target: AnyPath | None = None,
    run: AnyPath | None = None,
    seed: int | None = None,
    explain: bool = False,
    changes: Mapping[str, Any] = {},
    events: Events | None = None,
) -> RunAnswer:
    """Train one student, the one the project names, and certify it. Raises as `search` does.

    ``explain`` adds each loss's share in the training, and the student's agreement with its teacher.
    """
    document = document_of(project, changes)
    with shown(events) as watched:
        return run_project("distill", document, _name(target), _path(run), None, seed, watched, explain)


def replay(run: AnyPath) -> ReplayReport:
    """Replay a run's decisions from its records, and compare. Raises ConfigurationError where there is no run."""
    from edgekd.search.replay import replay as replay_run

    return replay_run(Run.open(Path(run)))


def export(run: AnyPath, *, output: AnyPath | None = None, events: Events | None = None) -> ExportAnswer:
    """Write a finished run's bundle, there or to ``output``, which may replace an earlier bundle only.

    Raises ConfigurationError where the run has none, and UsageError where ``output`` holds anything else.
    """
    import shutil

    from edgekd.bundle.contents import bundle_digest, contents_of
    from edgekd.bundle.write import BUNDLE, require_free
    from edgekd.store.atomic import draft_of, replace_folder

    opened, folder = Run.open(Path(run)), _path(output)
    if folder is not None:
        require_free(folder)
    with shown(events) as watched:
        certificate = bundle_of(opened, watched)
    bundle = opened.folder / BUNDLE
    if folder is not None:
        draft = draft_of(folder.absolute())
        try:
            shutil.copytree(bundle, draft)
            if contents_of(draft, certificate).sound < len(certificate.files):
                raise MissingError(f"{folder}: the copy is not what was read", "is the disk failing?")
            replace_folder(draft, folder.absolute())
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        bundle = folder
    return ExportAnswer(bundle=bundle, sha256=bundle_digest(bundle), certificate=certificate)


def export_model(
    model: str,
    *,
    output: AnyPath,
    weights: AnyPath | None = None,
    formats: Sequence[str] = (),
    precisions: Sequence[str] = (),
    data: AnyPath | None = None,
    shape: Shapes | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    target: AnyPath | None = None,
    max_drop: float | None = None,
    seed: int = 0,
    events: Events | None = None,
) -> ModelExportAnswer:
    """Export a model (``my_model.py:build``, a .pt2 or .onnx file) as bundles below ``output``, one per format.

    ``formats`` are all where none is named, ``precisions`` float32. ``data``: an .npz, a folder of pictures or WAV
    files, or a .csv; int8 is calibrated with it, and every file scored beside the float model. ``shape`` is (C, H, W)
    or (C, T); ``mean`` and ``std`` are in raw units. With ``max_drop`` (0.01: a point of accuracy, or of agreement
    where there are no labels) each format gets its smallest precision within it, on a ``target``'s device its fastest;
    with a target, a certificate. A model of several inputs takes an .npz with an array for each, by the names of its
    ``forward`` parameters; without data a ``shape`` per input.

    Raises UsageError, ConfigurationError, MissingError, DeviceBusy, Interrupted. A format that can't be made is a row
    of the answer.
    """
    from edgekd.artefacts import Format
    from edgekd.exporting.export import ExportPlan
    from edgekd.exporting.export import export_model as export_own
    from edgekd.exporting.naming import as_shapes
    from edgekd.ir.numerics import Precision

    asked = ExportPlan(
        formats=tuple(_member(Format, "model format", name) for name in formats),
        precisions=tuple(_member(Precision, "precision", name) for name in precisions),
        data=_path(data),
        shapes=() if shape is None else as_shapes(shape),
        mean=tuple(mean),
        std=tuple(std),
        target=_name(target),
        max_drop=max_drop,
        seed=seed,
    )
    with shown(events) as watched:
        return export_own(model, _path(weights), asked, Path(output), watched)


def verify(
    bundle: AnyPath, *, device: str | None = None, digest: str | None = None, events: Events | None = None
) -> VerifyReport:
    """Verify a bundle's files, outputs and budgets on this computer, or on ``device``.

    ``digest``: the bundle's digest as `export` gave it, where it is known from another source. Runs nothing of the
    bundle: the device that its certificate names is never looked up, for a file of that name may define a command to
    start.
    """
    from edgekd.bundle.verify import read_certificate, verify_bundle
    from edgekd.devices.catalogue import open_device
    from edgekd.devices.local import LocalDevice

    read_certificate(Path(bundle))  # a folder that is no bundle is refused before the device is taken
    with shown(events) as watched:
        where = LocalDevice(name="this-computer") if device is None else open_device(device, notice=watched.notice)
        session = where.open()
        try:
            with tempfile.TemporaryDirectory(prefix=prefix()) as scratch:
                return verify_bundle(Path(bundle), session, Path(scratch), measuring(watched), watched.stop, digest)
        finally:
            session.close()


def report(run: AnyPath) -> ReportAnswer:
    """Draw a run's page again. Raises ConfigurationError on a folder that is no run."""
    from edgekd.report.page import write_report

    return ReportAnswer(report=write_report(Path(run)))


def runs(folder: AnyPath | Sequence[AnyPath] = "runs") -> RunsAnswer:
    """Runs below a folder or several, newest first; a folder that can't be read is listed as damaged."""
    return list_runs(*_paths(folder))


def compare(runs: Sequence[AnyPath]) -> ComparisonAnswer:
    """Compare runs, or those below folders: certified figures side by side, and the fields in which they differ.

    Raises UsageError on fewer than two runs, and ConfigurationError on a damaged one.
    """
    from edgekd.store.comparison import compare_runs

    return compare_runs(_paths(runs))


def trials(run: AnyPath) -> list[dict[str, str | float | None]]:
    """Trials of a run as flat rows: ``pandas.DataFrame(edgekd.trials("runs/mine"))``. A begun run has those so far.

    Times are in us, sizes in bytes. Raises ConfigurationError on a folder that is no run.
    """
    return trial_rows(Run.open(Path(run)))


def bench(
    models: AnyPath | Sequence[AnyPath],
    *,
    device: str = "this-computer",
    backends: Sequence[str] = (),
    threads: int | Sequence[int] | None = None,
    plan: MeasurePlan | None = None,
    twins: Sequence[tuple[str, str]] = (),
    shapes: Mapping[str, Sequence[int]] = {},
    against: AnyPath | None = None,
    weights: AnyPath | None = None,
    image: Shapes | None = None,
    events: Events | None = None,
) -> BenchReport:
    """Time models side by side, with each number of threads, by default the plan's.

    ``twins`` are (float, compressed) file names beyond those found by name. ``shapes`` are those of inputs with free
    axes, by name; under the name ``""`` that of a model's only input. ``against`` is an earlier report, as JSON:
    `BenchReport.against` has the models that became slower, or no longer run.

    A model may be ``my_model.py:build`` with its ``weights``, or a .pt2 file: it is converted in float32 to the
    backends' formats. ``image`` is its input shape, (C, H, W) or (C, T), or a shape per input. Raises
    ConfigurationError, UsageError, MissingError, DeviceBusy.
    """
    from edgekd.artefacts import Backend
    from edgekd.devices._protocol import MeasurePlan
    from edgekd.devices.catalogue import open_device
    from edgekd.measure.benches.bench import run_bench

    wanted = [Backend.model_validate(name) for name in backends] or None
    asked = tuple((name, tuple(axes)) for name, axes in shapes.items())
    chosen, before = plan or MeasurePlan(), _path(against)
    with shown(events) as watched, _files_of(models, weights, image, backends, watched) as files:
        where, step = open_device(device, notice=watched.notice), measuring(watched)
        return run_bench(files, where, wanted, threads, chosen, step, twins, watched.stop, before, asked)


def bench_devices(
    models: AnyPath | Sequence[AnyPath],
    devices: Sequence[str],
    *,
    backends: Sequence[str] = (),
    threads: int | Sequence[int] | None = None,
    plan: MeasurePlan | None = None,
    twins: Sequence[tuple[str, str]] = (),
    shapes: Mapping[str, Sequence[int]] = {},
    weights: AnyPath | None = None,
    image: Shapes | None = None,
    events: Events | None = None,
) -> BenchReports:
    """Run `bench` on several devices, one after the other. One that can't be used is noted, and the others measured.

    Raises ConfigurationError, UnknownName and UsageError before anything is measured.
    """
    from edgekd.artefacts import Backend
    from edgekd.devices._protocol import MeasurePlan
    from edgekd.devices.catalogue import open_device
    from edgekd.ir.backends import formats_of
    from edgekd.measure.benches import devices as bench_devices
    from edgekd.measure.benches.bench import numbers_of_threads
    from edgekd.measure.models import find_models, pair_twins

    numbers_of_threads(threads, plan or MeasurePlan())
    for backend in backends:
        formats_of(Backend.model_validate(backend))  # raises UnknownName on one that can't be driven
    for device in devices:
        with contextlib.suppress(MissingError):  # one without a connection keeps the others from nothing
            open_device(device)
    options: dict[str, Any] = {
        "backends": backends, "threads": threads, "plan": plan, "twins": twins, "shapes": shapes,
    }  # fmt: skip
    with shown(events) as watched, _files_of(models, weights, image, backends, watched) as files:
        options["events"] = watched
        pair_twins(find_models(files), twins)
        return bench_devices.bench_devices(dict.fromkeys(devices), lambda name: bench(files, device=name, **options))


def profile(
    device: str = "this-computer",
    *,
    backends: Sequence[str] = (),
    precisions: Sequence[str] = (),
    threads: int = 1,
    quick: bool = False,
    again: bool = False,
    events: Events | None = None,
) -> ProfileReport:
    """Profile a device: peaks, overheads, width sweep, memory, threads, heat, noise; and latency tables.

    The tables are of ``threads`` threads. Sections measured in the device's present state are not measured again,
    unless ``again``. Raises MissingError, DeviceBusy, UsageError on less than one thread or on a model, Interrupted
    (finished sections are kept), and UnknownName.
    """
    from edgekd.artefacts import Backend
    from edgekd.devices.catalogue import open_device
    from edgekd.ir.numerics import Precision
    from edgekd.profiling.run import profile_device

    if ":" in device or Path(device).suffix in (".py", ".pt2", ".onnx", ".tflite", ".xml"):
        raise UsageError(f"profile takes a device, and {device} is a model", f"edgekd bench {device} --profile")
    wanted = [Backend.model_validate(name) for name in backends]
    known = [precision.value for precision in Precision]
    unknown = next((name for name in precisions if name not in known), None)
    if unknown is not None:
        raise UnknownName("precision", unknown, known)
    if threads < 1:
        raise UsageError(f"{threads} threads: one at least is expected", "for example threads=4")
    with shown(events) as watched:
        return profile_device(
            open_device(device, notice=watched.notice), wanted, quick, again, watched,
            precisions=[Precision(name) for name in precisions], threads=threads,
        )  # fmt: skip


def predict(
    models: AnyPath | Sequence[AnyPath],
    *,
    device: str = "this-computer",
    backends: Sequence[str] = (),
    threads: int = 1,
    tables: AnyPath | Sequence[AnyPath] = (),
    weights: AnyPath | None = None,
    image: Shapes | None = None,
    events: Events | None = None,
) -> PredictReport:
    """Predict latencies of models on a device from earlier measurements there: nothing is measured.

    ``tables`` are files to predict from in place of the stored ones. Models, ``weights`` and ``image``: see `bench`. A
    function that builds a model runs, and so does the conversion; a file is read as bytes.

    Raises ConfigurationError, MissingError where too little was measured, and Interrupted.
    """
    from edgekd.measure.prediction.predict import predict_models
    from edgekd.predicting import asked_of, tables_for

    with shown(events) as watched:
        known = tables_for(device, threads, _paths(tables), watched.notice)
        measured = [str(table.backend) for table in known.tables]
        with _files_of(models, weights, image, backends or measured, watched) as files:
            asked, unfit = asked_of(files, backends, known.tables)
    report = predict_models(device, known.fingerprint, threads, known.tables, asked, known.other_devices)
    return report.but(note=known.note, unfit=unfit)


def losses(name: str | None = None) -> LossesAnswer:
    """Losses that a recipe can name, or one of them with its options. Raises UnknownName."""
    from edgekd.distill.losses.catalogue import known_losses

    return known_losses(name)


def doctor(*, device: str = "this-computer", notice: Callable[[str], object] | None = None) -> DoctorReport:
    """Readiness of this machine, check by check.

    ``notice`` gets a line where a file in the working folder defines how the device is reached.
    """
    from edgekd.devices.catalogue import open_device
    from edgekd.measure.doctor import examine

    return examine(open_device(device, notice=notice))


@contextmanager
def _files_of(
    models: AnyPath | Sequence[AnyPath],
    weights: AnyPath | None,
    image: Shapes | None,
    backends: Sequence[str],
    events: Events,
) -> Iterator[list[Path]]:
    """Files of models for as long as the context lasts; models to convert are written in the backends' formats."""
    from edgekd.artefacts import Backend, Format
    from edgekd.exporting.naming import as_shapes, is_model
    from edgekd.ir.backends import formats_of

    names = [str(path) for path in _paths(models)]
    if not any(map(is_model, names)):
        if weights is not None or image is not None:
            raise UsageError("weights and an input are for a model that is built", "for example my_model.py:build")
        yield _paths(models)
        return
    from edgekd.exporting.export import converted_files

    read = dict.fromkeys(formats_of(Backend.model_validate(name))[0] for name in backends)
    shapes = () if image is None else as_shapes(image)
    with tempfile.TemporaryDirectory(prefix=prefix()) as folder:
        yield converted_files(names, _path(weights), shapes, tuple(read or Format), Path(folder), events)


def _path(given: AnyPath | None) -> Path | None:
    return None if given is None else Path(given)


def _paths(given: AnyPath | Sequence[AnyPath]) -> list[Path]:
    """List of paths; a single path is a list of one."""
    return [Path(given)] if isinstance(given, str | PathLike) else [Path(each) for each in given]


def _member(members: type[MemberT], kind: str, name: str) -> MemberT:
    """Member of an enumeration by its value. Raises UnknownName."""
    known = {str(member.value): member for member in members}
    if name not in known:
        raise UnknownName(kind, name, known)
    return known[name]


def _name(given: AnyPath | None) -> str | None:
    """Name of a target, or of its file."""
    return None if given is None else str(given)
