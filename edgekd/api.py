"""The Python surface of edgekd: a function for each command.

Each returns a frozen answer, and may be called from a script; the command line does nothing else. Heavy imports happen
inside the functions, so importing this module loads neither torch nor a runtime.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field

from edgekd.beginning import begin
from edgekd.devices.catalogue import probe_device as probe
from edgekd.devices.install import install_runtimes as install
from edgekd.errors import ConfigurationError, NothingFits, ParityFailed, Place, UnknownName, Unstable, UsageError
from edgekd.events import Events, SilentEvents
from edgekd.measure.tables import export_table, import_tables
from edgekd.measure.tables import list_tables as tables
from edgekd.records import Filed, Record, digest_json
from edgekd.store.certificate import CERTIFICATE, Certificate
from edgekd.store.explanation import ExplanationRecord
from edgekd.store.listing import RunsAnswer, RunSummary, list_runs, shortened
from edgekd.store.opening import changed_since, open_run
from edgekd.store.records import AutoRecord, OutcomeRecord, RunHeader
from edgekd.store.run import Run
from edgekd.targets.listing import list_devices as devices
from edgekd.targets.listing import list_targets as targets
from edgekd.targets.listing import show_target as target
from edgekd.targets.verdict import Answer
from edgekd.targets.writing import write_target as new_target

if TYPE_CHECKING:
    from edgekd.bundle.verify import VerifyReport
    from edgekd.devices._protocol import DeviceSession, Fingerprint, MeasurePlan
    from edgekd.distill.losses.catalogue import LossesAnswer
    from edgekd.measure.bench import BenchReport
    from edgekd.measure.bench_devices import BenchReports
    from edgekd.measure.doctor import DoctorReport
    from edgekd.measure.predict import PredictReport
    from edgekd.profiling.record import ProfileReport
    from edgekd.project import Project
    from edgekd.search.replay import ReplayReport

__all__ = [
    "RunAnswer",
    "RunSummary",
    "RunsAnswer",
    "begin",
    "bench",
    "bench_devices",
    "compress",
    "devices",
    "distill",
    "doctor",
    "export",
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
    "tables",
    "target",
    "targets",
    "verify",
]

_VERSIONED = (
    *("edgekd", "torch", "onnx", "onnxruntime", "openvino", "ai-edge-litert", "ai-edge-quantizer", "litert-torch"),
    *("numpy", "optuna", "torch-pruning"),
)
Command = Literal["search", "compress", "distill"]


class RunAnswer(Filed):
    """What a search, a compression or a distillation came to."""

    schema_: Literal["edgekd.answer/1"] = Field(default="edgekd.answer/1", alias="schema")
    run: Path
    outcome: OutcomeRecord
    certificate: Certificate | None
    bundle: Path | None
    report: Path
    explanation: ExplanationRecord | None = None  # where it was asked for
    auto: AutoRecord | None = None  # of a recipe that was left to be chosen

    @property
    def exit_code(self) -> int:
        """0, or 5 where nothing fits (or the test split says so in the end), or 6 where it can't be told."""
        return self.outcome.exit_code

    def lines(self) -> list[str]:
        """As a person reads it."""
        if self.certificate is None:
            lines = [self.outcome.summary, *self.outcome.detail]
        else:
            lines = [f"{self.certificate.standing}  {self.certificate.summary()}"]
            margins = [
                f"{verdict.limit.metric} {verdict.margin:.0%}"
                for verdict in self.certificate.verdict.limits
                if verdict.margin is not None
            ]
            if margins:
                lines.append(f"           {self.certificate.verdict.answer.value}; margins: {', '.join(margins)}")
            lines += list(self.outcome.detail)
        if self.auto is not None and self.auto.ended:
            lines.append(self.auto.line())
        if self.explanation is not None:
            lines += self.explanation.lines()
        lines += [f"report     {shortened(self.report)}"]
        if self.bundle is not None:
            lines += [f"bundle     {shortened(self.bundle)}", f"next:      edgekd verify {shortened(self.bundle)}"]
        return lines


class ExportAnswer(Filed):
    """A finished bundle."""

    schema_: Literal["edgekd.export/1"] = Field(default="edgekd.export/1", alias="schema")
    bundle: Path
    certificate: Certificate

    @property
    def exit_code(self) -> int:
        """0, or as the search ended whose certificate doesn't hold."""
        holds = self.certificate.certified or self.certificate.lesser is not None
        return 0 if holds else _shortfall(self.certificate).exit_code

    def lines(self) -> list[str]:
        """As a person reads it."""
        lines = [f"bundle     {shortened(self.bundle)}", f"           {self.certificate.summary()}"]
        if not self.certificate.certified:
            lines.append(f"           not certified: {self.certificate.shortfall()}")
        return lines


class ReportAnswer(Filed):
    """A drawn page."""

    schema_: Literal["edgekd.report/1"] = Field(default="edgekd.report/1", alias="schema")
    report: Path

    def lines(self) -> list[str]:
        """As a person reads it."""
        return [shortened(self.report)]


def search(
    project: Path,
    *,
    target: str | None = None,
    run: Path | None = None,
    budget: str | None = None,
    seed: int | None = None,
    events: Events | None = None,
) -> RunAnswer:
    """Search a student for a target, measured in the loop, and certify it. Resumes where ``run`` was begun.

    Raises ConfigurationError, MissingError, Interrupted; finding nothing is an answer with exit code 5, not an error.
    """
    return _run("search", project, target, run, budget, seed, events or SilentEvents())


def compress(
    project: Path,
    *,
    target: str | None = None,
    run: Path | None = None,
    budget: str | None = None,
    seed: int | None = None,
    events: Events | None = None,
) -> RunAnswer:
    """Search how far a person's own model can be pruned and quantized for a target. Raises as `search` does."""
    return _run("compress", project, target, run, budget, seed, events or SilentEvents())


def distill(
    project: Path,
    *,
    target: str | None = None,
    run: Path | None = None,
    seed: int | None = None,
    explain: bool = False,
    events: Events | None = None,
) -> RunAnswer:
    """Train one student, the one the project names, and certify what comes out. Raises as `search` does.

    ``explain`` tells besides what each loss did in training, and how the student follows its teacher.
    """
    return _run("distill", project, target, run, None, seed, events or SilentEvents(), explain)


def replay(run: Path) -> ReplayReport:
    """Decide everything again from a run's records, and compare. Raises ConfigurationError where there is no run."""
    from edgekd.search.replay import replay as replay_run

    return replay_run(Run.open(run))


def export(run: Path, *, output: Path | None = None, events: Events | None = None) -> ExportAnswer:
    """Write a finished run's bundle, there or to ``output``, which takes the place of an earlier bundle only.

    Raises ConfigurationError where the run has none, and UsageError where ``output`` holds anything else.
    """
    import shutil

    from edgekd.bundle.write import BUNDLE, require_free
    from edgekd.store.atomic import draft_of, replace_folder

    opened = Run.open(run)
    if output is not None:
        require_free(output)
    certificate = _bundle_of(opened, events or SilentEvents())
    bundle = opened.folder / BUNDLE
    if output is not None:
        draft = draft_of(output.absolute())
        shutil.copytree(bundle, draft)
        replace_folder(draft, output.absolute())
        bundle = output
    return ExportAnswer(bundle=bundle, certificate=certificate)


def verify(bundle: Path, *, device: str | None = None, events: Events | None = None) -> VerifyReport:
    """Check a bundle's files, answers and budgets on this computer, or on ``device``.

    Runs nothing of the bundle: the device that its certificate names is never looked up, for a file of that name
    may say what to start.
    """
    from edgekd.bundle.verify import verify_bundle
    from edgekd.devices.catalogue import open_device
    from edgekd.devices.local import LocalDevice

    shown = events or SilentEvents()
    where = LocalDevice(name="this-computer") if device is None else open_device(device)
    session = where.open()
    try:
        with tempfile.TemporaryDirectory(prefix="edgekd-verify-") as scratch:
            return verify_bundle(bundle, session, Path(scratch), shown.progress, shown.stop)
    finally:
        session.close()


def report(run: Path) -> ReportAnswer:
    """Draw a run's page again. Raises ConfigurationError on a folder that is no run."""
    from edgekd.report.page import write_report

    return ReportAnswer(report=write_report(run))


def runs(folder: Path = Path("runs")) -> RunsAnswer:
    """The runs below a folder, the newest first; a folder that can't be read is listed as damaged."""
    return list_runs(folder)


def bench(
    models: Sequence[Path],
    *,
    device: str = "this-computer",
    backends: Sequence[str] = (),
    threads: int | Sequence[int] = 1,
    plan: MeasurePlan | None = None,
    twins: Sequence[tuple[str, str]] = (),
    shapes: Mapping[str, Sequence[int]] = {},
    against: Path | None = None,
    events: Events | None = None,
) -> BenchReport:
    """Time models side by side, with each number of threads. ``twins`` are (float, compressed) file names beyond those
    the names tell.

    ``shapes`` are those of inputs with free axes, by name; under the name ``""`` that of a model's only input.
    ``against`` is an earlier report, as JSON: `BenchReport.against` says what became slower.

    Raises ConfigurationError, MissingError, DeviceBusy.
    """
    from edgekd.artefacts import Backend
    from edgekd.devices._protocol import MeasurePlan
    from edgekd.devices.catalogue import open_device
    from edgekd.measure.bench import run_bench

    wanted = [Backend.model_validate(name) for name in backends] or None
    asked = tuple((name, tuple(axes)) for name, axes in shapes.items())
    shown, where, chosen = events or SilentEvents(), open_device(device), plan or MeasurePlan()
    return run_bench(models, where, wanted, threads, chosen, shown.progress, twins, shown.stop, against, asked)


def bench_devices(
    models: Sequence[Path],
    devices: Sequence[str],
    *,
    backends: Sequence[str] = (),
    threads: int | Sequence[int] = 1,
    plan: MeasurePlan | None = None,
    twins: Sequence[tuple[str, str]] = (),
    shapes: Mapping[str, Sequence[int]] = {},
    events: Events | None = None,
) -> BenchReports:
    """`bench` on several devices, one after the other. One that can't be used is noted, and the others measured.

    Raises ConfigurationError, and UnknownName before anything is measured.
    """
    from edgekd.devices.catalogue import open_device
    from edgekd.measure import bench_devices
    from edgekd.measure.models import find_models

    find_models(models)
    for device in devices:
        open_device(device)
    options: dict[str, Any] = {
        "backends": backends, "threads": threads, "plan": plan, "twins": twins, "shapes": shapes, "events": events,
    }  # fmt: skip
    return bench_devices.bench_devices(dict.fromkeys(devices), lambda name: bench(models, device=name, **options))


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
    """Measure what a device can do: peaks, overheads, staircases, memory, threads, heat, noise; and latency tables.

    The tables are of ``threads`` threads. What was measured while the device was what it is now is not measured again,
    unless ``again``. Raises MissingError, DeviceBusy, UsageError on less than one thread, Interrupted (finished
    sections are kept), and UnknownName.
    """
    from edgekd.artefacts import Backend, Precision
    from edgekd.devices.catalogue import open_device
    from edgekd.profiling.run import profile_device

    wanted = [Backend.model_validate(name) for name in backends]
    known = [precision.value for precision in Precision]
    unknown = next((name for name in precisions if name not in known), None)
    if unknown is not None:
        raise UnknownName("precision", unknown, known)
    if threads < 1:
        raise UsageError(f"{threads} threads: one at least is expected", "for example threads=4")
    return profile_device(
        open_device(device), wanted, quick, again, events or SilentEvents(),
        precisions=[Precision(name) for name in precisions], threads=threads,
    )  # fmt: skip


def predict(
    models: Sequence[Path],
    *,
    device: str = "this-computer",
    backends: Sequence[str] = (),
    threads: int = 1,
    tables: Sequence[Path] = (),
) -> PredictReport:
    """What models would take on a device, from what was measured there before: nothing is run.

    ``tables`` are files to predict from in place of those kept here. Raises ConfigurationError, and MissingError where
    too little was measured.
    """
    from edgekd.measure.predict import predict_models
    from edgekd.predicting import asked_of, known_of

    known = known_of(device, threads, tables)
    asked = asked_of(models, backends, known.tables)
    report = predict_models(device, known.fingerprint, threads, known.tables, asked, known.elsewhere)
    return report.but(note=known.note)


def losses(name: str | None = None) -> LossesAnswer:
    """Every loss a recipe can name, or one of them with its options. Raises UnknownName."""
    from edgekd.distill.losses.catalogue import known_losses

    return known_losses(name)


def doctor(*, device: str = "this-computer") -> DoctorReport:
    """Whether this machine is ready, line by line."""
    from edgekd.devices.catalogue import open_device
    from edgekd.measure.doctor import examine

    return examine(open_device(device))


def _run(
    command: Command,
    project_file: Path,
    target: str | None,
    folder: Path | None,
    budget: str | None,
    seed: int | None,
    events: Events,
    explaining: bool = False,
) -> RunAnswer:
    from edgekd.devices.catalogue import open_device
    from edgekd.export.converter import Converter
    from edgekd.project import read_project
    from edgekd.report.page import write_report
    from edgekd.search.automatic import settled_recipe
    from edgekd.search.explain import explain
    from edgekd.search.rating import rate_teachers
    from edgekd.search.requirements import require_meter, require_runtimes
    from edgekd.search.rounds import run_rounds
    from edgekd.search.search import run_search
    from edgekd.search.single import run_single

    started = time.monotonic()
    project = read_project(project_file, target, budget=budget, seed=seed, notice=events.line)
    if command == "compress" and not project.family.inherits:
        raise ConfigurationError.one(
            f"`compress` starts from a model of one's own, and the family `{project.family.name}` trains from nothing",
            "use edgekd search, or student: {family: pruned, model: my_model.py:build, ...}",
            Place(str(project.path), field="student.family"),
        )
    if command == "search" and project.search.by == "rounds":
        raise ConfigurationError.one(
            "by: rounds shrinks one trained model, and a search compares candidates",
            "use edgekd compress, or leave it out",
            Place(str(project.path), field="search.by"),
        )
    session = open_device(project.target.device, project.folder).open()
    try:
        fingerprint = session.describe()
        require_runtimes(project.target, fingerprint)
        require_meter(project.target, fingerprint)
        # training a teacher may take hours: a busy device or a missing runtime is told before it
        project = _with_teacher(project, events)
        run = _open_run(command, project, folder, fingerprint)
        events.line(_opening(command, project, run))
        with run.writing():
            outcome = run.outcome()
            if outcome is None:
                if run.plan() is None:
                    rate_teachers(project, run, events)
                chosen_before = run.auto()
                project = settled_recipe(project, run, events, started)
                if run.auto() != chosen_before:
                    started = time.monotonic()  # the time until here is in its record
                with Converter(run.scratch / "convert") as converter:
                    by_rounds = command == "compress" and project.search.by == "rounds"
                    runner = run_single if command == "distill" else run_rounds if by_rounds else run_search
                    outcome = runner(project, run, session, converter, events, started)
            certificate = None
            if outcome.chosen is not None:
                certificate, outcome = _certified(run, outcome, project, session, events)
            explanation = explain(project, run) if explaining else None
            page = write_report(run.folder)
    finally:
        session.close()
    bundle = run.folder / "bundle" if certificate is not None else None
    return RunAnswer(
        run=run.folder,
        outcome=outcome,
        certificate=certificate,
        bundle=bundle,
        report=page,
        explanation=explanation,
        auto=run.auto(),
    )


def _with_teacher(project: Project, events: Events) -> Project:
    """The teacher ready to answer: trained here where the project asks for it, and fitted to the task."""
    from dataclasses import replace

    from edgekd.project import cache_folder
    from edgekd.students._protocol import StageProgress
    from edgekd.teachers._protocol import Preparable
    from edgekd.teachers.binding import bind

    def show(progress: StageProgress) -> None:
        events.progress("teacher", progress.done, progress.total, progress.note)

    teacher, asked = project.teacher, cast(object, project.teacher)
    try:
        if isinstance(asked, Preparable):
            teacher = asked.prepare(project.task, cache_folder(), show, events.stop)
        if teacher is not None:
            teacher = bind(teacher, project.task.spec)
    except ConfigurationError as error:
        here = Place(str(project.path), field="teacher")
        raise ConfigurationError(
            [problem if problem.place.file else replace(problem, place=here) for problem in error.problems]
        ) from error
    return replace(project, teacher=teacher)


def _open_run(command: Command, project: Project, folder: Path | None, fingerprint: Fingerprint) -> Run:
    """Begin a run, or go on with one. Raises ConfigurationError where the folder's run asked for something else."""
    created = datetime.now(UTC)
    teacher = project.teacher
    header = RunHeader(
        id="",
        command=command,
        created=created.isoformat(timespec="seconds"),
        project=project.resolved,
        project_file=str(project.path),
        target=project.target,
        task=project.task.spec,
        teacher=teacher.name if teacher else "none",
        teacher_digest=teacher.digest() if teacher else digest_json(None),
        family=project.family.name,
        family_digest=project.family.digest() if isinstance(project.family, Record) else None,
        fingerprint=fingerprint,
        versions=_versions(),
        seed=project.search.seed,
        budget_s=float(project.search.budget),
    )
    return open_run(header, folder)


def _versions() -> Mapping[str, str]:
    found = {"python": sys.version.split()[0]}
    for package in _VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _opening(command: Command, project: Project, run: Run) -> str:
    limits = ", ".join(str(limit) for limit in project.target.limits) or "no budget"
    job = f"{project.task.spec.name} -> {project.target.device} ({limits})"
    return f"edgekd {command}  {job}  seed {run.header.seed}  {shortened(run.folder)}"


def _certified(
    run: Run, outcome: OutcomeRecord, project: Project, session: DeviceSession, events: Events
) -> tuple[Certificate, OutcomeRecord]:
    """The bundle, and the outcome as the test split leaves it. Raises ParityFailed, which is the outcome then."""
    try:
        certificate = _bundle(run, project, session, events)
    except ParityFailed as error:
        run.write(outcome.but(exit_code=error.exit_code, summary=f"not certified: {error.message}"))
        raise
    if outcome.exit_code == 0 and not (certificate.certified or certificate.lesser is not None):
        outcome = outcome.but(
            exit_code=_shortfall(certificate).exit_code, summary=f"not certified: {certificate.shortfall()}"
        )
        run.write(outcome)
    return certificate, outcome


def _shortfall(certificate: Certificate) -> type[Unstable | NothingFits]:
    return Unstable if certificate.verdict.answer is Answer.UNSTABLE else NothingFits


def _bundle(run: Run, project: Project, session: DeviceSession, events: Events) -> Certificate:
    """The bundle of a run that chose a finalist: the one that is there, or a new one."""
    from edgekd.bundle.write import BUNDLE, write_bundle
    from edgekd.store.schema import read_record

    path = run.folder / BUNDLE / CERTIFICATE
    if path.is_file():
        return read_record(path, Certificate)
    events.progress("bundle", 0, 1, "test split, parity")
    chosen = next(finalist for finalist in run.finalists() if finalist.chosen)
    certificate = write_bundle(run, chosen, project.task, project.export, session)
    events.progress("bundle", 1, 1, "")
    return certificate


def _bundle_of(run: Run, events: Events) -> Certificate:
    from edgekd.bundle.write import BUNDLE
    from edgekd.devices.catalogue import open_device
    from edgekd.project import read_project
    from edgekd.store.schema import read_record

    outcome = run.outcome()
    if outcome is None or outcome.chosen is None:
        state = "is not finished" if outcome is None else f"chose nothing: {outcome.summary}"
        raise ConfigurationError.one(f"the run {state}", "go on with its command first", Place(str(run.folder)))
    if (run.folder / BUNDLE / CERTIFICATE).is_file():
        return read_record(run.folder / BUNDLE / CERTIFICATE, Certificate)
    project = read_project(Path(run.header.project_file), seed=run.header.seed)
    if project.resolved["export"] != run.header.project["export"] or project.task.spec != run.header.task:
        raise ConfigurationError.one(
            f"the task or the export section of {project.path.name} is no longer what this run was measured with",
            "put it back as it was, or search again",
            Place(str(project.path)),
        )
    session = open_device(run.header.target.device, project.folder).open()
    try:
        changed = changed_since(run.header, session.describe(), _versions())
        if changed:
            raise ConfigurationError.one(
                f"the run was measured with another {', '.join(changed)}",
                "export it there, or search again here",
                Place(str(run.folder)),
            )
        with run.writing():
            return _certified(run, outcome, project, session, events)[0]
    finally:
        session.close()
