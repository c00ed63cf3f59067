"""Run of a project, from its file to its certificate: the common part of search, compress and distill."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from pydantic import Field

from edgekd.checking import Command, preflight, require_command, with_floor
from edgekd.code_references import no_exit
from edgekd.documents import Document
from edgekd.errors import ConfigurationError, NothingFits, ParityFailed, Place, Unstable
from edgekd.events import Events
from edgekd.measure.conditions import busy_when_measured
from edgekd.overrides import document_of
from edgekd.records import Digest, Record, Shown, digest_json
from edgekd.store.certificate import Certificate
from edgekd.store.explanation import ExplanationRecord
from edgekd.store.listing import shortened
from edgekd.store.opening import changed_since, is_begun, open_run, require_place
from edgekd.store.records import AutoRecord, OutcomeRecord, RunHeader
from edgekd.store.run import Run
from edgekd.targets.verdict import Answer

if TYPE_CHECKING:
    from edgekd.devices._protocol import DeviceSession, Fingerprint
    from edgekd.project import Project
    from edgekd.students._protocol import Student

__all__ = ["RunAnswer", "bundle_of", "run_project", "shortfall_of", "versions_here", "with_teacher"]

SPLIT_LIST = "splits.csv"
"""List of the files in each split, in a run's folder."""

_VERSIONED = (
    *("edgekd", "torch", "onnx", "onnxruntime", "openvino", "ai-edge-litert", "ai-edge-quantizer", "litert-torch"),
    *("numpy", "optuna", "torch-pruning"),
)


class RunAnswer(Shown):
    """Answer of a search, a compression or a distillation."""

    schema_: Literal["edgekd.answer/1"] = Field(default="edgekd.answer/1", alias="schema")
    run: Path
    outcome: OutcomeRecord
    certificate: Certificate | None
    bundle: Path | None
    report: Path
    bundle_sha256: Digest | None = None  # of the bundle's certificate, and so of all files it lists
    explanation: ExplanationRecord | None = None  # where it was asked for
    auto: AutoRecord | None = None  # of `recipe: auto`
    own: str = ""  # the user's own model and the result, in a line

    @property
    def exit_code(self) -> int:
        """0, or 5 where nothing fits (or the certificate on the test split fails), or 6 where it is undecided."""
        return self.outcome.exit_code

    def lines(self) -> list[str]:
        """Format as text lines."""
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
            if busy := busy_when_measured(self.certificate.load_average, self.certificate.machine_cores):
                lines.append(f"           {busy}")
            if self.certificate.in_float:
                precision = self.certificate.candidate.plan.precision.value
                lines.append(f"note       {precision} computes in float: {self.certificate.in_float}")
            lines += [f"caution    {caution}" for caution in self.certificate.cautions]
            lines += list(self.outcome.detail)
        if self.own:
            lines.append(self.own)
        if self.auto is not None and self.auto.ended:
            lines.append(self.auto.line())
        if self.explanation is not None:
            lines += self.explanation.lines()
        lines += [f"report     {shortened(self.report)}"]
        if self.bundle is not None:
            lines += [
                f"bundle     {shortened(self.bundle)}",
                f"digest     {self.bundle_sha256}",
                f"next:      edgekd verify {shortened(self.bundle)}",
            ]
        return lines


@no_exit()
def run_project(
    command: Command,
    written: Path | Document,
    target: str | None,
    folder: Path | None,
    budget: str | None,
    seed: int | None,
    events: Events,
    explaining: bool = False,
) -> RunAnswer:
    """Run a project to its certificate; a begun run is resumed. Raises as `edgekd.api.search` does.

    ``target``, ``budget`` and ``seed`` replace the project's values. ``folder``: the run's folder, new or begun.
    """
    from edgekd.project import blamed, read_project, ready_data

    started = time.monotonic()
    project = read_project(written, target, budget=budget, seed=seed, notice=events.notice)
    require_command(command, project)
    if command != "distill":
        events.budget(float(project.search.budget), time.monotonic() - started)
    # seconds of imports: errors of the file are reported before them
    from edgekd.bundle.contents import bundle_digest
    from edgekd.devices.catalogue import open_device
    from edgekd.export.converter import Converter
    from edgekd.report.page import write_report
    from edgekd.search.automatic import resolved_recipe
    from edgekd.search.iterative.original import beside_own
    from edgekd.search.iterative.rounds import run_rounds
    from edgekd.search.outcome.explain import explain
    from edgekd.search.rating import rate_teachers
    from edgekd.search.requirements import require_meter, require_runtimes, simulation_caution
    from edgekd.search.search import run_search, spent_before
    from edgekd.search.single import run_single
    from edgekd.search.trials.untrained import native_format
    from edgekd.students.own import forget_models
    from edgekd.tasks._protocol import sizes_of

    forget_models()
    if folder is not None:
        require_place(folder)  # a teacher may be trained before the run begins
    session = open_device(project.target.device, project.device_folder, events.notice).open()
    try:
        fingerprint = session.describe()
        require_runtimes(project.target, fingerprint)
        require_meter(project.target, fingerprint)
        prepared = ready_data(project, events)
        with blamed(project, "task"):
            events.line(f"data       {sizes_of(project.task)}")
        for line in prepared:
            events.line(line)
        if caution := simulation_caution(project.target, fingerprint):
            events.line(f"caution    {caution}")
        project = with_floor(command, project, events)
        # training a teacher may take hours: a busy device, a missing runtime and a mistake are found before it
        if folder is None or not is_begun(folder):
            preflight(command, project, events)
        project = with_teacher(project, events)
        run = _open_run(command, project, folder, fingerprint)
        _list_splits(run, project)
        events.line(_opening(command, project, run))
        if command != "distill":
            events.budget(float(project.search.budget), spent_before(run) + time.monotonic() - started)
        with run.writing():
            outcome = _outcome_of_what_is_there(run, events)
            if outcome is None:
                with Converter(run.scratch / "convert") as converter:
                    if run.plan() is None:
                        rate_teachers(project, run, events)
                    chosen_before = run.auto()
                    project = resolved_recipe(project, run, events, started)
                    if run.auto() != chosen_before:
                        started = time.monotonic()  # the time up to here is in its record
                    if run.plan() is None and command != "distill":  # a conversion comes before anything is timed
                        converter.begin(native_format(project.target.backends[0]))
                    by_rounds = command == "compress" and project.search.by == "iterative"
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
        bundle_sha256=bundle_digest(bundle) if bundle is not None else None,
        report=page,
        explanation=explanation,
        auto=run.auto(),
        own=beside_own(run, certificate) if certificate is not None else "",
    )


def _outcome_of_what_is_there(run: Run, events: Events) -> OutcomeRecord | None:
    """Recorded outcome, or None to resume.

    Where a needed file is damaged, the run resumes from before it was made; where noise decided nothing, from before
    the finalists were measured.
    """
    from edgekd.bundle.write import whole_certificate
    from edgekd.search.finalists.damage import damaged_parts, forget_damaged_rounds, forget_finalists
    from edgekd.search.finalists.selection import forget_undecided

    outcome = run.outcome()
    if outcome is not None and outcome.undecided:
        events.line("note: the last time the machine was too noisy to decide: its finalists are measured again")
        forget_undecided(run)
        outcome = None
    if outcome is not None and (outcome.chosen is None or whole_certificate(run) is not None):
        return outcome
    damaged = damaged_parts(run)
    if outcome is not None and not damaged:
        return outcome
    if damaged:
        forget_finalists(run)
    damaged = tuple(filter(None, (forget_damaged_rounds(run), *damaged)))
    if damaged:
        events.line(f"note: damaged or gone, and made again: {', '.join(dict.fromkeys(damaged))}")
    return None


def with_teacher(project: Project, events: Events) -> Project:
    """Project with its teacher ready: trained here where the project asks for it, and fitted to the task."""
    from dataclasses import replace

    from edgekd.events import StageProgress
    from edgekd.project import blamed, cache_folder
    from edgekd.teachers._protocol import PreparableTeacher
    from edgekd.teachers.binding import bind

    def show(progress: StageProgress) -> None:
        events.progress("teacher", progress.done, progress.total, progress.note)

    teacher, asked = project.teacher, cast(object, project.teacher)
    with blamed(project, "task"):
        spec = project.task.spec
    with blamed(project, "teacher"):
        if isinstance(asked, PreparableTeacher):
            teacher = asked.prepare(project.task, cache_folder(), show, events.stop)
        if teacher is not None:
            events.progress("teacher", 0, 0, f"{teacher.name}: a first answer")  # a person's code may take long
            teacher = bind(teacher, spec)
    return replace(project, teacher=teacher)


def _open_run(command: Command, project: Project, folder: Path | None, fingerprint: Fingerprint) -> Run:
    """Begin a run, or resume one. Raises ConfigurationError where the folder's run has another request."""
    from edgekd.tasks._protocol import sizes_of

    created = datetime.now(UTC)
    teacher = project.teacher
    header = RunHeader(
        id="",
        command=command,
        created=created.isoformat(timespec="seconds"),
        project=project.resolved,
        project_file=str(project.path),
        written=project.written,
        target=project.target,
        task=project.task.spec,
        teacher=teacher.name if teacher else "none",
        teacher_digest=teacher.digest() if teacher else digest_json(None),
        family=project.family.name,
        family_digest=_family_digest(project),
        fingerprint=fingerprint,
        versions=versions_here(),
        seed=project.search.seed,
        budget_s=float(project.search.budget),
        sizes=str(sizes_of(project.task)),
    )
    return open_run(header, folder)


def _list_splits(run: Run, project: Project) -> None:
    """Write the list of files in each split, so that others can score on the same ones."""
    from edgekd.store.atomic import write_bytes
    from edgekd.tasks._protocol import OfFiles

    task, path = cast(object, project.task), run.folder / SPLIT_LIST
    if isinstance(task, OfFiles) and not path.exists():
        write_bytes(path, task.split_list().encode(errors="surrogateescape"))


def _family_digest(project: Project) -> Digest | None:
    """Digest of the family's options, its source and its initial weights."""
    return project.family.digest() if isinstance(project.family, Record) else None


def versions_here() -> Mapping[str, str]:
    """Versions of Python and of the installed packages that can change a figure."""
    found = {"python": sys.version.split()[0]}
    for package in _VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _opening(command: Command, project: Project, run: Run) -> str:
    limits = ", ".join(project.target.written) or "no budget"
    target = project.target
    job = f"{project.task.spec.name} -> {target.name} on {target.device} ({limits})"
    return f"edgekd {command}  {job}  seed {run.header.seed}  {shortened(run.folder)}"


def _certified(
    run: Run, outcome: OutcomeRecord, project: Project, session: DeviceSession, events: Events
) -> tuple[Certificate, OutcomeRecord]:
    """Bundle, and the outcome after scoring the test split. Raises ParityFailed, which is then the outcome."""
    try:
        certificate = _bundle(run, project, session, events)
    except ParityFailed as error:
        run.write(outcome.but(exit_code=error.exit_code, summary=f"not certified: {error.message}"))
        raise
    if outcome.exit_code == 0 and not (certificate.certified or certificate.lesser is not None):
        outcome = outcome.but(
            exit_code=shortfall_of(certificate).exit_code, summary=f"not certified: {certificate.shortfall()}"
        )
        run.write(outcome)
    return certificate, outcome


def shortfall_of(certificate: Certificate) -> type[Unstable | NothingFits]:
    """Error class of a certificate that doesn't hold."""
    return Unstable if certificate.verdict.answer is Answer.UNSTABLE else NothingFits


def _bundle(run: Run, project: Project, session: DeviceSession, events: Events) -> Certificate:
    """Bundle of a run that chose a finalist: the existing one, or a new one."""
    from edgekd.bundle.write import whole_certificate, write_bundle

    certificate = whole_certificate(run)
    if certificate is not None:
        return certificate
    events.progress("bundle", 0, 1, "test split, parity")
    chosen = next(finalist for finalist in run.finalists() if finalist.chosen)
    certificate = write_bundle(run, chosen, project.task, project.export, session, _own_model(run, project))
    events.progress("bundle", 1, 1, "")
    return certificate


def _own_model(run: Run, project: Project) -> Student | None:
    """User's own model that the run started from, where it was measured."""
    from edgekd.students.student import new_student

    original = run.original()
    if original is None:
        return None
    return new_student(project.family, original.arch, project.task.spec, run.header.seed)


def _again(run: Run) -> str:
    """Command that goes on with a run."""
    header = run.header
    if header.written is not None:
        return f"`{header.command}` with the arguments that it had, and the run {run.folder},"
    return f"edgekd {header.command} {header.project_file} --run {run.folder}"


@no_exit()
def bundle_of(run: Run, events: Events) -> Certificate:
    """Certificate of a finished run; its bundle is written if it doesn't exist yet. Raises ConfigurationError."""
    from edgekd.bundle.write import whole_certificate
    from edgekd.devices.catalogue import open_device
    from edgekd.project import read_project
    from edgekd.search.finalists.damage import damaged_parts

    outcome = run.outcome()
    if outcome is None or outcome.chosen is None:
        state = "is not finished" if outcome is None else f"chose nothing: {outcome.summary}"
        raise ConfigurationError.one(f"the run {state}", "go on with its command first", Place(str(run.folder)))
    certificate = whole_certificate(run)
    if certificate is not None:
        return certificate
    damaged = damaged_parts(run)
    if damaged:
        raise ConfigurationError.one(
            f"{', '.join(damaged)} is damaged or gone, and the bundle can't be made of it",
            f"{_again(run)} makes it again",
            Place(str(run.folder)),
        )
    file, written = Path(run.header.project_file), run.header.written
    project = read_project(file if written is None else document_of(written, {}, file), seed=run.header.seed)
    changed = [
        what
        for what, same in {
            "task": project.task.spec == run.header.task,
            "export section": project.resolved["export"] == run.header.project["export"],
            "student, with its weights,": _family_digest(project) == run.header.family_digest,
        }.items()
        if not same
    ]
    if changed:
        raise ConfigurationError.one(
            f"the {' and the '.join(changed)} of {project.path.name} is no longer what this run was measured with",
            "put it back as it was, or search again",
            Place(str(project.path)),
        )
    session = open_device(run.header.target.device, project.device_folder, events.notice).open()
    try:
        changed = changed_since(run.header, session.describe(), versions_here())
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
