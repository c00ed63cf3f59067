"""Check a bundle again: its files by hash, its answers by its samples, its budgets by a fresh measurement.

Reads data only: nothing of the project that made the bundle is imported, so a stranger's bundle is safe to check.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from edgekd.artefacts import RUNTIMES, Artefact, Backend
from edgekd.bundle.agreement import agreeing, largest_difference
from edgekd.bundle.preprocess import PREPROCESS, Preprocess
from edgekd.bundle.samples import SAMPLES, read_samples
from edgekd.devices._protocol import DeviceSession, Fingerprint, Job, Measurement, Outcome, Progress
from edgekd.errors import ConfigurationError, MissingError, Place
from edgekd.evidence import Figure
from edgekd.export.answers import read_outputs
from edgekd.export.integer import float_figure, float_operators
from edgekd.export.tensors import answers_of, to_model_inputs
from edgekd.measure.figures import figures_for_limits
from edgekd.measure.sentinel import judge_measured
from edgekd.measure.settle import measure_until
from edgekd.records import Record, Shown, digest_file
from edgekd.store.certificate import CERTIFICATE, Certificate
from edgekd.store.schema import read_record
from edgekd.targets.target import Limit
from edgekd.targets.verdict import Answer, Verdict

__all__ = ["Check", "VerifyReport", "read_bundle", "read_certificate", "verify_bundle"]

_MOST_PROCESSES = 20


class CheckAnswer(str, Enum):
    """What came of one check."""

    HOLDS = "holds"
    FAILS = "fails"
    UNSTABLE = "unstable"
    NOT_REPEATED = "not repeated"
    REPORTED = "reported only"


class Check(Record):
    """One line of the report."""

    name: str
    found: str
    answer: CheckAnswer


class VerifyReport(Shown):
    """All checks of a bundle."""

    schema_: Literal["edgekd.verify/1"] = Field(default="edgekd.verify/1", alias="schema")
    bundle: str
    checks: tuple[Check, ...]
    verdict: Verdict | None  # on this machine's fresh figures

    @property
    def exit_code(self) -> int:
        """0 nothing fails, 7 files or answers differ; 5 a budget fails and 6 too noisy, here or in the certificate.

        What this machine can't repeat is said and fails nothing.
        """
        failed = [check.name for check in self.checks if check.answer is CheckAnswer.FAILS]
        if any(name in ("files and hashes", "parity") for name in failed):
            return 7
        if failed:
            return 5
        return 6 if any(check.answer is CheckAnswer.UNSTABLE for check in self.checks) else 0

    def lines(self) -> list[str]:
        """As a person reads it."""
        width = max(len(check.name) for check in self.checks)
        return [f" {check.name:<{width}}  {check.found}   {check.answer.value}" for check in self.checks]


def read_certificate(folder: Path) -> Certificate:
    """The certificate of a bundle: what its other files are checked against. Raises ConfigurationError on none."""
    if not (folder / CERTIFICATE).is_file():
        raise ConfigurationError.one(
            f"is not a bundle (it has no {CERTIFICATE})",
            "give the folder that `edgekd export` wrote",
            Place(str(folder)),
        )
    return read_record(folder / CERTIFICATE, Certificate)


def read_bundle(folder: Path) -> tuple[Certificate, Preprocess]:
    """Certificate and outside of a bundle, unchecked. Raises ConfigurationError where it is none."""
    return read_certificate(folder), read_record(folder / PREPROCESS, Preprocess)


def verify_bundle(
    folder: Path,
    session: DeviceSession,
    scratch: Path,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> VerifyReport:
    """Run every check that this machine can.

    Raises ConfigurationError on a folder that is no bundle, MissingError where its runtime is not there, Interrupted.
    """
    certificate = read_certificate(folder)
    checks = [_hashes(folder, certificate)]
    verdict = None
    if checks[0].answer is CheckAnswer.HOLDS:
        _require_runtime(certificate.backend, session.describe())
        _, outside = read_bundle(folder)
        job = Job(artefact=Artefact.of(folder / certificate.model), backend=certificate.backend)
        checks.append(_parity(folder, certificate, outside, session, job, scratch))
        verdict, budgets = _budgets(certificate, session, job, progress, stop)
        checks += budgets
    checks.append(
        Check(
            name="accuracy",
            found=f"{certificate.accuracy.value:.2%} on the {certificate.accuracy.split} split, not in the bundle",
            answer=CheckAnswer.NOT_REPEATED,
        )
    )
    if certificate.lesser is not None:
        found = f"{certificate.shortfall()}; not certified"
        checks.append(Check(name="certificate", found=found, answer=CheckAnswer.HOLDS))
    elif not certificate.certified:
        unsure = certificate.verdict.answer is Answer.UNSTABLE
        said = CheckAnswer.UNSTABLE if unsure else CheckAnswer.FAILS
        checks.append(Check(name="certificate", found=f"not certified: {certificate.shortfall()}", answer=said))
    return VerifyReport(bundle=str(folder), checks=tuple(checks), verdict=verdict)


def _require_runtime(backend: Backend, here: Fingerprint) -> None:
    if backend.runtime not in here.runtimes:
        known = RUNTIMES.get(backend.runtime)
        raise MissingError(
            f"its files are as certified, but there is no {backend.runtime} on this device to check more",
            f"there: pip install {known.package}" if known else "this edgekd does not know it: take a later one",
        )


def _hashes(folder: Path, certificate: Certificate) -> Check:
    wrong = []
    for file in certificate.files:
        path = folder / file.name
        inside = path.resolve().is_relative_to(folder.resolve())
        if not inside or not path.is_file() or digest_file(path) != file.sha256:
            wrong.append(file.name)
    found = f"{len(certificate.files) - len(wrong)} of {len(certificate.files)}"
    if wrong:
        return Check(name="files and hashes", found=f"{found}; differ: {', '.join(wrong)}", answer=CheckAnswer.FAILS)
    listed, model = {(folder / file.name).resolve() for file in certificate.files}, folder / certificate.model
    beside = Artefact.of(model).files[1:] if model.resolve() in listed else ()
    used = (model, *beside, folder / PREPROCESS, folder / SAMPLES)
    loose = [path.name for path in used if path.resolve() not in listed]
    if loose:  # what is about to be run must be what was certified
        found = f"{found}; without a hash: {', '.join(loose)}"
        return Check(name="files and hashes", found=found, answer=CheckAnswer.FAILS)
    return Check(name="files and hashes", found=found, answer=CheckAnswer.HOLDS)


def _parity(
    folder: Path, certificate: Certificate, outside: Preprocess, session: DeviceSession, job: Job, scratch: Path
) -> Check:
    samples = read_samples(folder / SAMPLES)
    inputs = to_model_inputs(samples.inputs, certificate.task, outside.export, outside.input_encoding)
    path = scratch / "inputs.npy"
    np.save(path, inputs, allow_pickle=False)
    result = session.run(job, [path])
    if result.outcome is not Outcome.OK:
        return Check(name="parity", found=f"{result.outcome.value}: {result.detail}", answer=CheckAnswer.FAILS)
    raw = read_outputs(result, len(inputs), certificate.task, outside.export)
    answers = answers_of(raw, certificate.task, outside.export, outside.output_encoding)
    agree = int(np.sum(agreeing(certificate.task, answers, samples.answers)))
    largest = largest_difference(certificate.task, answers, samples.answers)
    parity = certificate.parity
    promised = (parity.agree if parity.alike is None else parity.alike) / parity.samples
    # another CPU may round differently: the certificate's own agreement, less one answer in a hundred (and one of few),
    # must be kept
    fewest = promised * len(answers) - max(1.0, 0.01 * len(answers))
    answer = CheckAnswer.HOLDS if agree >= fewest else CheckAnswer.FAILS
    found = f"{agree} of {len(answers)} answers as the student's, largest difference {largest:.3g}"
    return Check(name="parity", found=found, answer=answer)


def _budgets(
    certificate: Certificate, session: DeviceSession, job: Job, progress: Progress | None, stop: Callable[[], bool]
) -> tuple[Verdict | None, list[Check]]:
    timed = [limit for limit in certificate.target.limits if limit.metric != "accuracy"]
    here = session.describe()
    if here.digest() != certificate.fingerprint.digest():
        differs = _difference(certificate, here.model_dump())
        said = f"measured on another machine or set-up ({differs}): measure here with `edgekd bench`"
        return None, [Check(name=str(limit), found=said, answer=CheckAnswer.NOT_REPEATED) for limit in timed]
    target, counted = certificate.target.but(accuracy=None), list[Figure]()
    if target.fully_integer and (operators := float_operators(job.artefact.path)) is not None:
        counted.append(float_figure(operators, job.artefact.sha256))

    def judged(measurement: Measurement) -> Verdict:
        figures = [*figures_for_limits(target, measurement, job.artefact), *counted]
        return judge_measured(target, figures, measurement)

    def decided(measurements: Sequence[Measurement]) -> bool:
        return judged(measurements[0]).answer is not Answer.UNSTABLE

    measured = measure_until(session, [job], certificate.plan, decided, _MOST_PROCESSES, progress, stop)[0]
    verdict = judged(measured)
    return verdict, [_budget_check(one.limit, one.figure, one.answer, measured) for one in verdict.limits]


def _budget_check(limit: Limit, figure: Figure | None, answer: Answer, measured: Measurement) -> Check:
    said = {
        Answer.HOLDS: CheckAnswer.HOLDS,
        Answer.FAILS: CheckAnswer.FAILS,
        Answer.UNSTABLE: CheckAnswer.UNSTABLE,
        Answer.UNKNOWN: CheckAnswer.FAILS,
    }[answer]
    if not limit.hard and said is not CheckAnswer.HOLDS:
        said = CheckAnswer.REPORTED
    if figure is None:
        found = f"no figure: {measured.detail or 'this machine does not tell it'}"
    else:
        exact = figure.low is None  # counted, not timed
        found = str(figure) if exact else f"{figure}, {len(measured.processes)} fresh processes"
    return Check(name=str(limit), found=found, answer=said)


def _difference(certificate: Certificate, here: dict[str, object]) -> str:
    there = certificate.fingerprint.model_dump()
    fields = [name for name in there if there[name] != here[name]]
    return ", ".join(fields)
