"""`FinalistTrainer` by the project's recipe: trains a finalist, exports its file, and scores that file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekd.artefacts import Artefact
from edgekd.devices._protocol import DeviceSession, Job
from edgekd.errors import EdgeKDError, Interrupted, MissingError
from edgekd.events import StageProgress
from edgekd.evidence import AccuracyKind
from edgekd.export._protocol import ConversionOutcome, ConversionResult, ExportOptions
from edgekd.export.converter import Converter
from edgekd.export.facts import facts_of
from edgekd.export.score import score_artefact
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate
from edgekd.recipes.key import chain
from edgekd.recipes.runner import RecipeResult, run_recipe
from edgekd.records import Digest
from edgekd.search._protocol import EstimateContext, Refined, Step
from edgekd.search.accuracy.recalibrate import Recalibrate, recalibrated_first
from edgekd.search.accuracy.scoring import score_student, stage_context
from edgekd.search.differentiable.teacher_tuning import assistant_of, with_temperature
from edgekd.search.recipe import calibrating, cut_to_time, with_precision
from edgekd.search.space.feasible import holds_untrained
from edgekd.search.trials.files import place
from edgekd.search.trials.untrained import native_format
from edgekd.stages import Stage, StageContext
from edgekd.store.records import Accuracy, FinalistRecord
from edgekd.store.run import Run
from edgekd.students._protocol import Student
from edgekd.students.student import is_whole, load_student, new_student

__all__ = ["RecipeTrainer"]


@dataclass(frozen=True)
class RecipeTrainer:
    """Runs the recipe, exports for the candidate's backend, and scores on the device, or in PyTorch for a simulator."""

    run: Run
    context: EstimateContext
    session: DeviceSession
    converter: Converter
    options: ExportOptions
    start: Student | None = None  # starting point of the recipe; None: a new student of the candidate's arch

    def refine(self, candidate: Candidate, late: Callable[[], bool] = lambda: False) -> Refined:
        """Train, export and score. A failed export or scoring gives a finalist without a file, with the reason."""
        plain = self._train(candidate, Precision.FLOAT32, late)
        float_twin = score_student(plain.student, self.context.task, AccuracyKind.TORCH, "the full recipe")
        result = self._train(candidate, candidate.plan.precision, late)
        conversion = self._convert(candidate, self.run.students / result.key, result.key)
        if conversion.artefact is None:
            detail = f"{conversion.outcome.value}: {conversion.detail}"
            return Refined(result.key, None, None, float_twin, result.curve, detail)
        artefact = self._keep(conversion.artefact)
        accuracy, detail = self._score(candidate, artefact, result.student)
        left = conversion.float_operators
        return Refined(result.key, artefact, accuracy, float_twin, result.curve, detail, left)

    def twin(self, candidate: Candidate) -> Artefact | None:
        """Export the finished float32 stages, which are kept by key."""
        if candidate.plan.precision is Precision.FLOAT32:
            return None
        plain = self._train(candidate, Precision.FLOAT32)
        its_own = candidate.but(plan=candidate.plan.but(precision=Precision.FLOAT32))
        result = self._convert(its_own, self.run.students / plain.key, f"twin-{plain.key}")
        if result.outcome is not ConversionOutcome.OK or result.artefact is None:
            return None
        return place(result.artefact, self.run.artefacts)

    def steps(self, finalist: FinalistRecord) -> tuple[Step, ...]:
        """Load the students that are kept by key.

        Weights given by the family come first, as a step of their own; of a pruned arch with BatchNorm recalibrated.
        """
        candidate = finalist.candidate
        student = self._begin(candidate)
        recipe, context = self._taught(candidate)
        stages, where = self._stages(candidate, recipe, candidate.plan.precision), self._where(candidate, context)
        named = list(zip((stage.name for stage in stages), chain(stages, student, where), strict=True))
        if stages and isinstance(stages[0], Recalibrate):
            named[0] = ("inherited", named[0][1])
        elif self.context.family.inherits and stages:
            named.insert(0, ("inherited", run_recipe([], student, where, self.run.students).key))
        found = []
        for number, (name, key) in enumerate(named):
            if self.context.stop():
                raise Interrupted("stopped between two stages' files", "run the same command again to go on")
            self.context.progress(StageProgress("stage by stage", number, len(named), name))
            found.append(self._step(finalist, name, key))
        return tuple(found)

    def _step(self, finalist: FinalistRecord, name: str, key: Digest) -> Step:
        if not is_whole(self.run.students / key):  # a search keeps a limited number of bytes of students
            return Step(name, key, Precision.FLOAT32, None, None, "its student is no longer kept")
        student = load_student(self.run.students / key)
        precision = student.annotations.precision
        if key == finalist.student:
            return Step(name, key, precision, finalist.artefact, finalist.accuracy)
        its_own = finalist.candidate.but(plan=finalist.candidate.plan.but(precision=precision))
        conversion = self._convert(its_own, self.run.students / key, f"step-{key}")
        if conversion.artefact is None:
            return Step(name, key, precision, None, None, f"{conversion.outcome.value}: {conversion.detail}")
        artefact = self._keep(conversion.artefact)
        return Step(name, key, precision, artefact, *self._score(its_own, artefact, student))

    def _train(
        self, candidate: Candidate, precision: Precision, late: Callable[[], bool] = lambda: False
    ) -> RecipeResult:
        recipe, context = self._taught(candidate)
        where = replace(self._where(candidate, context), late=late)
        stages = self._stages(candidate, recipe, precision)
        return run_recipe(stages, self._begin(candidate), where, self.run.students)

    def _stages(self, candidate: Candidate, recipe: Sequence[Stage], precision: Precision) -> tuple[Stage, ...]:
        """Stages of a recipe at this precision. A pruned arch starts as it was estimated: recalibrated."""
        stages = tuple(with_precision(recipe, precision))
        if self.start is not None:
            return stages
        return recalibrated_first(stages, candidate.arch, self.context.family, self.context.task.spec)

    def _where(self, candidate: Candidate, context: EstimateContext) -> StageContext:
        """Return the context of a candidate's stages; the whole model keeps its start if it fits without training."""
        plan = self.run.plan()
        whole = self.start is None and plan is not None and candidate.arch == plan.original
        keeps_start = whole and not candidate.plan.untouched and self._fits_as_it_came()
        return replace(stage_context(candidate, context), keeps_start=keeps_start)

    def _fits_as_it_came(self) -> bool:
        """Tell whether the untouched model meets every limit on some deployment."""
        deployments, target = self.run.deployments(), self.run.target
        return deployments is not None and any(
            holds_untrained(target, trial, deployments.tails) for trial in self.run.trials()
        )

    def _begin(self, candidate: Candidate) -> Student:
        if self.start is not None:
            return self.start
        return new_student(self.context.family, candidate.arch, self.context.task.spec, self.context.seed)

    def _taught(self, candidate: Candidate) -> tuple[Sequence[Stage], EstimateContext]:
        """Recipe and teacher of a candidate: the project's, or the best found for its arch by teacher tuning.

        An untouched model has no recipe but its precision.
        """
        if candidate.plan.untouched:
            return calibrating(self.context.recipe), self.context
        recipe, context = cut_to_time(self.context.recipe, self.run.proposals()), self.context
        archs = {trial.number: trial.candidate.arch for trial in self.run.trials()}
        tuning = next((each for each in self.run.teacher_tunings() if archs.get(each.trial) == candidate.arch), None)
        if tuning is None:
            return recipe, context
        plan = self.run.plan()
        options = plan.differentiable if plan is not None else None
        if tuning.assistant and options is not None and options.assistant is not None:
            context = replace(context, teacher=assistant_of(self.run, options.assistant, context))
        return with_temperature(recipe, tuning.temperature), context

    def _convert(self, candidate: Candidate, student_folder: Path, name: str) -> ConversionResult:
        """Convert a finished student to a file with its metadata. ``candidate`` has the student's precision."""
        if candidate.backend is None:
            raise ValueError(f"{candidate} has no backend to be made for")
        wanted = native_format(candidate.backend)
        folder = self.run.scratch / "refined" / name / candidate.backend.runtime
        folder.mkdir(parents=True, exist_ok=True)
        return self.converter.convert(
            student_folder,
            wanted,
            self.options,
            candidate.backend,
            self.context.fingerprint,
            folder / f"model{wanted.suffix}",
            facts_of(self.run.header, candidate, self.options, wanted),
        )

    def _keep(self, artefact: Artefact) -> Artefact:
        """Copy the file to artefacts/ under its digest; the record's path is relative to the run."""
        placed = place(artefact, self.run.artefacts)
        return placed.but(path=placed.path.relative_to(self.run.folder))

    def _score(self, candidate: Candidate, artefact: Artefact, student: Student) -> tuple[Accuracy | None, str]:
        if candidate.backend is None:
            return None, "no backend"
        here = self.context.fingerprint
        if here is not None and here.simulates:  # it runs nothing: the student's accuracy stands for its file's
            return score_student(student, self.context.task, AccuracyKind.TORCH, "the full recipe"), ""
        job = Job(artefact=self.run.resolve(artefact), backend=candidate.backend)
        scratch = self.run.scratch / "score"
        try:
            score = score_artefact(self.session, job, student, self.context.task, "validation", self.options, scratch)
        except (Interrupted, MissingError):
            raise  # the finalist is as good as before, and is scored when the device is back
        except EdgeKDError as error:
            return None, f"its file could not be scored: {error.message}"  # a finalist's outcome, in its record
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return (
            Accuracy(
                value=score.value,
                kind=AccuracyKind.ARTEFACT,
                split="validation",
                samples=score.samples,
                method=f"the exported file in {candidate.backend}",
                parts=score.parts,
                errors=score.errors,
            ),
            "",
        )
