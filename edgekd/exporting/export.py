"""Export of a model to files: each format, at the requested precisions or the smallest that keeps accuracy."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.bundle.contents import bundle_digest
from edgekd.devices._protocol import DeviceSession, Measurement, Outcome
from edgekd.devices.catalogue import open_device
from edgekd.distill.predict import predict
from edgekd.errors import ConfigurationError, ParityFailed, UsageError
from edgekd.events import Events, measuring, stop_if_asked
from edgekd.evidence import find_figure
from edgekd.export.converter import Converter
from edgekd.exporting.answer import ExportedFile, ModelExportAnswer
from edgekd.exporting.builder import FileBuilder, Made, backend_for, detail_of
from edgekd.exporting.bundling import certified_bundle, checked_bundle, judged, require_replaceable
from edgekd.exporting.card import card_text
from edgekd.exporting.data import ModelTask, Values, task_for
from edgekd.exporting.model_argument import GivenModel, given_model
from edgekd.exporting.model_inputs import model_inputs
from edgekd.exporting.naming import is_model
from edgekd.ir.backends import BACKENDS, formats_of
from edgekd.ir.numerics import Precision
from edgekd.ir.support import COMPARED
from edgekd.measure.sequential import measure_until
from edgekd.records import digest_json
from edgekd.running import versions_here
from edgekd.search.plan import trial_plan
from edgekd.search.requirements import require_meter, require_running, require_runtimes
from edgekd.store.atomic import sweep
from edgekd.store.records import RunHeader
from edgekd.students.own import forget_models
from edgekd.students.unpacking import unpack_inputs
from edgekd.targets.catalogue import device_folder, load_target
from edgekd.targets.relative import floored
from edgekd.targets.target import Target
from edgekd.targets.verdict import Answer
from edgekd.tasks._protocol import SplitName
from edgekd.tasks.score import near_chance
from edgekd.temporary import prefix

__all__ = ["ExportPlan", "converted_files", "export_model"]

_LABELS = "that labels number classes as the model does"
_CHECK, _CHECK_SEVERAL = f"check --mean and --std, and {_LABELS}", f"check how inputs are prepared, and {_LABELS}"
_STOPPED = ("stopped; bundles that were written are kept", "give the same command again")


@dataclass(frozen=True)
class ExportPlan:
    """Options of an export. Empty formats: all, or those that the target's backends read natively.

    ``max_drop`` is in points of accuracy from 0 to 1; with it, empty precisions are all of them, else float32.
    """

    formats: tuple[Format, ...] = ()
    precisions: tuple[Precision, ...] = ()
    data: Path | None = None
    shapes: tuple[tuple[int, ...], ...] = ()  # one an input; empty: what the data or the model's file says
    mean: Values = ()
    std: Values = ()
    target: str | None = None
    max_drop: float | None = None
    seed: int = 0


def export_model(model: str, weights: Path | None, plan: ExportPlan, output: Path, events: Events) -> ModelExportAnswer:
    """Convert, calibrate, compare, score, choose, certify, and write one bundle per format below ``output``.

    Raises UsageError, ConfigurationError on a model or data that can't be used, MissingError, DeviceBusy, Interrupted.
    A format that can't be made is a row of the answer, and so is accuracy that drops too far.
    """
    target = load_target(plan.target) if plan.target is not None else None
    if target is not None and plan.data is None:
        raise UsageError("a certificate tells accuracy, which needs samples", "give --data, or leave --target out")
    if plan.max_drop is not None and plan.data is None:
        raise UsageError("--max-drop compares answers to samples", "give --data: with labels, or without")
    if plan.max_drop is not None and not 0 <= plan.max_drop < 1:
        raise UsageError(f"max_drop {plan.max_drop:g}: a share of accuracy below 1 is expected", "0.01 is one point")
    formats = plan.formats or _formats_of(target)
    forget_models()
    given = given_model(model, weights, events.notice)
    module = given.module(events.line)
    named = model_inputs(module, given.called, plan.shapes, plan.data, given.inputs)
    shape = plan.shapes[0] if plan.shapes else given.shape
    task = task_for(module, given.called, shape, plan.data, plan.mean, plan.std, events, named)
    if target is not None and task.kind != "top1" and target.accuracy is not None:
        raise UsageError(
            f"target {target.name} asks for accuracy, and the samples have no labels", "give labels with them"
        )
    places = {form: output / form.value for form in formats}
    for place in places.values():
        sweep(place)  # what a killed export left
        require_replaceable(place, [path for path in (*given.files, plan.data) if path is not None])
    beside = device_folder(plan.target) if plan.target is not None else None
    session = open_device(target.device if target is not None else "this-computer", beside, events.notice).open()
    try:
        with (
            tempfile.TemporaryDirectory(prefix=prefix()) as scratch,
            Converter(Path(scratch) / "convert") as converter,
        ):
            export = _Export(given, task, plan, target, session, converter, Path(scratch), events)
            notes = _notes(task, plan) + export.doubts()
            if target is not None:
                export.bind(target)
            reference = export.reference("test") if task.kind == "top1" else None
            if reference is not None:
                events.line(
                    f"model      {given.called}: {reference:.1%} in PyTorch, {len(task.split('test'))} test samples"
                )
            rows = [row for form in formats for row in export.format(form, places[form])]
    finally:
        session.close()
    return ModelExportAnswer(
        model=given.family.called,
        data=task.where,
        metric=task.kind,
        samples=len(task.split("test")) if task.kind else 0,
        accuracy=reference,
        max_drop=plan.max_drop,
        files=tuple(rows),
        notes=notes,
    )


def converted_files(
    models: Sequence[str],
    weights: Path | None,
    shapes: tuple[tuple[int, ...], ...],
    formats: Sequence[Format],
    folder: Path,
    events: Events,
) -> list[Path]:
    """Float32 files of models to be timed: ``folder/build.onnx``, one per format. Impossible formats are reported.

    Files that runtimes read are returned unchanged. Raises ConfigurationError and UsageError as `export_model` does,
    and ConfigurationError where no format is possible for a model.
    """
    found: list[Path] = []
    with Converter(folder / "convert") as converter:
        for number, model in enumerate(models):
            if not is_model(model):
                found.append(Path(model))
                continue
            given = given_model(model, weights, events.notice)
            make = _float_files(given, shapes, converter, folder / str(number), events)
            stem = given.called if not list(folder.glob(f"{given.called}.*")) else f"{given.called}-{number}"
            refused = []
            for done, form in enumerate(formats):
                stop_if_asked(events, *_STOPPED)
                events.progress("converting", done, len(formats), f"{given.called} to {form.value}")
                artefact, detail = make(form)
                if artefact is None:
                    refused.append(f"{form.value}: {detail}")
                    continue
                named = artefact.named(stem)
                for name, source in named.items():
                    source.replace(folder / name)
                found.append(folder / next(iter(named)))
            events.progress("converting", len(formats), len(formats), "")
            if len(refused) == len(formats):
                raise ConfigurationError.one(f"{model} can't be had as {'; '.join(refused)}", "export another model")
            for reason in refused:
                events.line(f"{given.called}: {reason}")
    return found


def _float_files(
    given: GivenModel, shapes: tuple[tuple[int, ...], ...], converter: Converter, scratch: Path, events: Events
) -> Callable[[Format], tuple[Artefact | None, str]]:
    """Return what converts a model to a format in float32: the file, or None and the reason."""
    module = given.module(events.line)
    named = model_inputs(module, given.called, shapes, None, given.inputs)
    task = task_for(module, given.called, shapes[0] if shapes else given.shape, None, (), (), named=named)
    builder = FileBuilder(given.family, task, converter, scratch)

    def one(form: Format) -> tuple[Artefact | None, str]:
        made = builder.converted(form, Precision.FLOAT32, backend_for(form))
        return made.artefact, made.row.detail

    return one


class _Export:
    """Export of one model, format by format."""

    def __init__(
        self,
        given: GivenModel,
        task: ModelTask,
        plan: ExportPlan,
        target: Target | None,
        session: DeviceSession,
        converter: Converter,
        scratch: Path,
        events: Events,
    ) -> None:
        self.given, self.task, self.plan, self.target = given, task, plan, target
        self.session, self.scratch, self.events = session, scratch, events
        self._references: dict[SplitName, float] = {}
        self._scores: dict[tuple[str, ...], float] = {}
        fingerprint = session.describe()
        if target is not None:
            require_running(target, fingerprint)
            require_runtimes(target, fingerprint)
            require_meter(target, fingerprint)
        contract = target or Target(name="none", device="this-computer", backends=(backend_for(Format.ONNX),))
        created = datetime.now(UTC).isoformat(timespec="seconds")
        self.header = RunHeader(
            id=f"export-{given.called}",
            command="export",
            created=created,
            project={},
            project_file="",
            target=contract,
            task=task.spec,
            teacher="none",
            teacher_digest=digest_json(None),
            family=given.family.name,
            family_digest=given.family.digest(),
            fingerprint=fingerprint,
            versions=versions_here(),
            seed=plan.seed,
            budget_s=None,
        )
        self.builder = FileBuilder(given.family, task, converter, scratch, session, fingerprint, self.header, plan.seed)

    def reference(self, split: SplitName) -> float:
        """Score of the float model on a split, in PyTorch."""
        if split not in self._references:
            part = self.task.split(split)
            module = unpack_inputs(self.given.module(lambda _: None), self.task.spec.input)
            answers = predict(module, part.inputs, self.task.spec)
            self._references[split] = self.task.score(answers, part.labels).value
        return self._references[split]

    def doubts(self) -> tuple[str, ...]:
        """Warn of a float model near chance: any file keeps that. Raises ConfigurationError where a drop from it is
        allowed.
        """
        if self.task.kind != "top1":
            return ()
        labels = self.task.split("validation").labels
        doubt = near_chance(self.reference("validation"), labels, self.task.spec.head.classes)
        check = _CHECK_SEVERAL if self.task.spec.input.named else _CHECK
        if doubt and self.plan.max_drop is not None:
            raise ConfigurationError.one(f"`{self.given.called}` is {doubt}: --max-drop would keep any file", check)
        return (f"the model is {doubt}: {check}",) if doubt else ()

    def bind(self, target: Target) -> None:
        """Set the target, with limits relative to the model as absolute figures. Raises UsageError."""
        if target.accuracy is not None and target.accuracy.drop is not None:
            target = floored(target, self.reference("validation"))
        if target.relative:
            metric, share = target.relative[0]
            raise UsageError(
                f"target {target.name} limits {metric} to {share}, and an export doesn't measure the model by itself",
                "write the limit in plain figures (edgekd bench my_model.py:build tells them), or use edgekd compress",
            )
        self.target, self.header = target, self.header.but(target=target)
        self.builder = replace(self.builder, header=self.header)

    def format(self, form: Format, place: Path) -> list[ExportedFile]:
        """Make, choose and bundle one format's files; a failure of one file is its row. Raises Interrupted."""
        made = self._made(form)
        good = [one for one in made if one.row.outcome == "passed over"]
        if self.plan.max_drop is not None:
            scored = self._scored(good, self.plan.max_drop)
            best = self._best([one for one in scored if one.row.outcome == "passed over"])
            chosen, good = [best] if best is not None else [], scored
        else:
            chosen = good
        rows = {(one.row.precision, one.row.backend): one.row for one in [*made, *good]}
        for one in chosen:
            stop_if_asked(self.events, *_STOPPED)
            try:
                row = self._bundled(one, place / self._name(one, form))
            except ConfigurationError as error:
                row = one.row.but(outcome="refused", detail=detail_of(error))
            except ParityFailed as error:
                row = one.row.but(outcome="differs", detail=detail_of(error))
            rows[(one.row.precision, one.row.backend)] = row
        _forget_others(place, {row.bundle for row in rows.values() if row.bundle is not None})
        return list(rows.values())

    def _name(self, one: Made, form: Format) -> str:
        """Subfolder in the format's folder, where that may get several: ``int8``, ``int8-builtin``; else empty."""
        if self.plan.max_drop is not None:
            return ""
        parts = [one.row.precision.value] if len(self.plan.precisions) > 1 else []
        several = len(_backends(self.target, form)) > 1
        return "-".join([*parts, *([one.job.backend.provider] if several else [])])

    def _made(self, form: Format) -> list[Made]:
        """Every requested precision, on each of the format's backends."""
        asked = self.plan.precisions or (COMPARED if self.plan.max_drop is not None else (Precision.FLOAT32,))
        wanted = [
            (one, on) for one in sorted(asked, key=lambda one: one.fidelity) for on in _backends(self.target, form)
        ]
        made = list[Made]()
        for precision, backend in wanted:
            stop_if_asked(self.events, *_STOPPED)
            self.events.progress(form.value, len(made), len(wanted), precision.value)
            made.append(self.builder.make(form, precision, backend))
        self.events.progress(form.value, len(made), len(wanted), "")
        return made

    def _scored(self, good: Sequence[Made], max_drop: float) -> list[Made]:
        """Files with their validation scores; without a target the smallest first, until one is good enough."""
        scored = list[Made]()
        for one in sorted(good, key=_smallest):
            stop_if_asked(self.events, *_STOPPED)
            try:
                scored.append(self._kept(one, max_drop))
            except ConfigurationError as error:
                scored.append(one.but(outcome="refused", detail=detail_of(error)))
            if self.target is None and scored[-1].row.outcome == "passed over":
                break
        return scored

    def _kept(self, one: Made, max_drop: float) -> Made:
        """Return the file with its score; marked as `drops` where that is too far below the float model's."""
        base = self.reference("validation")
        score = self.score(one, "validation")
        drop = base - score
        if drop <= max_drop + 1e-9:
            return one.but(chosen_by=score)
        detail = f"{100 * drop:.1f} points below {base:.1%}, and {100 * max_drop:g} are allowed"
        return one.but(chosen_by=score, outcome="drops", detail=detail)

    def score(self, one: Made, split: SplitName) -> float:
        """Score of a file on a split, in its runtime. Splits may have the same images: each is scored once."""
        key = (str(one.row.format), one.row.precision.value, one.row.backend, self.task.split(split).digest)
        if key not in self._scores:
            self._scores[key] = self.builder.scored(one, split)
        return self._scores[key]

    def _best(self, within: Sequence[Made]) -> Made | None:
        """Return the smallest; on a target's device the fastest that holds its limits, or else the fastest."""
        if not within:
            return None
        if self.target is None:
            return min(within, key=_smallest)
        target = self.target
        plan = trial_plan(target, self.plan.seed)
        jobs = [one.job for one in within]
        measured = measure_until(
            self.session, jobs, plan, lambda _: True, plan.processes, measuring(self.events), self.events.stop
        )

        def merit(pair: tuple[Made, Measurement]) -> tuple[bool, float]:
            one, measurement = pair
            samples = len(self.task.split("validation"))
            figures, verdict = judged(target, one, measurement, one.row.chosen_by, samples)
            low = find_figure(figures, "latency.p5")
            failed = measurement.outcome is not Outcome.OK or verdict.answer is Answer.FAILS
            return failed, low.value if low is not None else float("inf")

        return min(zip(within, measured, strict=True), key=merit)[0]

    def _bundled(self, one: Made, folder: Path) -> ExportedFile:
        self.events.progress("bundle", 0, 1, one.row.format.value)
        score = self.score(one, "test") if self.task.kind else None
        row = one.row.but(outcome="written", bundle=folder, accuracy=score)
        if self.target is None:
            reference = self.reference("test") if self.task.kind == "top1" else None
            card = card_text(self.given, self.task, row, one.options, reference)
            checked_bundle(one, self.task, self.header, card, folder)
        else:
            chosen_by = row.chosen_by if row.chosen_by is not None else self.score(one, "validation")
            scratch = self.scratch / "runs" / one.key
            certificate = certified_bundle(
                one,
                chosen_by,
                self.task,
                self.header,
                self.builder.students,
                self.session,
                scratch,
                folder,
                self.events,
            )
            low = find_figure(certificate.figures, "latency.p5") or find_figure(certificate.figures, "latency.p50")
            row = row.but(
                latency_us=low.value if low is not None else None,
                certificate=f"{certificate.standing}  {certificate.summary()}",
                sha256=bundle_digest(folder),
            )
            if not (certificate.certified or certificate.lesser is not None):
                unsure = certificate.verdict.answer is Answer.UNSTABLE
                row = row.but(outcome="unstable" if unsure else "over budget", detail=certificate.shortfall())
        self.events.progress("bundle", 1, 1, "")
        return row


def _smallest(one: Made) -> tuple[int, int]:
    return one.row.size_bytes or 0, -one.row.precision.fidelity


def _formats_of(target: Target | None) -> tuple[Format, ...]:
    if target is None:
        return tuple(Format)
    return tuple(dict.fromkeys(formats_of(backend)[0] for backend in target.backends))


def _backends(target: Target | None, form: Format) -> list[Backend]:
    """Backends of a format's files: those of the target that read it natively."""
    if target is None:
        return [backend_for(form)]
    found = [backend for backend in target.backends if BACKENDS[str(backend)].formats[0] is form]
    if not found:
        known = ", ".join(dict.fromkeys(formats_of(backend)[0].value for backend in target.backends))
        raise UsageError(f"target {target.name} has no backend for {form.value}", f"its backends read {known}")
    return found


def _notes(task: ModelTask, plan: ExportPlan) -> tuple[str, ...]:
    """Remarks on how far the scores can be trusted."""
    notes, given = list[str](), task.spec.input
    if plan.std and given.raw_dtype == "uint8" and max(plan.std) <= 1:
        notes.append(
            "--mean and --std are in raw units, 0 to 255 for pixels: these look like those of pixels from 0 to 1"
        )
    if plan.data is not None and not plan.mean and not given.named:
        if given.raw_dtype == "uint8":
            mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (given.mean, given.std))
            notes.append(
                f"pixels are normalised by the data's own mean {mean} and std {std}: "
                "give --mean and --std, if the model was trained with others"
            )
        else:
            notes.append(f"{given.what} of floats are taken as normalised already: else give --mean and --std")
    validation = len(task.split("validation"))
    if plan.max_drop is not None and plan.max_drop * validation < 1:
        notes.append(
            f"a drop of {100 * plan.max_drop:g} points is less than one of {validation} {given.what}: give more"
        )
    return (*notes, *task.notes)


def _forget_others(place: Path, written: Collection[Path]) -> None:
    """Remove what an earlier export left beside the bundles written now; ``place`` is checked to hold exports alone."""
    if written and place not in written and place.is_dir():
        for other in place.iterdir():
            if other not in written:
                shutil.rmtree(other) if other.is_dir() else other.unlink()
