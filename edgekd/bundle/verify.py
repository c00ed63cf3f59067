"""Check a bundle again: its files by hash, its answers by its samples, its budgets by a fresh measurement.

Reads data only: nothing of the project that made the bundle is imported, so a stranger's bundle is safe to check. All
that it says is bounded before it is obeyed, and what it can't mean is an error that names the file. A bundle
forged throughout is detected only by its digest, known from elsewhere (`edgekd.bundle.contents`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from edgekd.artefacts import Artefact, Backend
from edgekd.bundle.agreement import agreeing, largest_difference
from edgekd.bundle.certificate_checks import LONGEST_S, first_batch, require_plan, require_sound, sound
from edgekd.bundle.claims import figures_claimed, labels_claimed
from edgekd.bundle.contents import bundle_digest, contents_of
from edgekd.bundle.preprocess import PREPROCESS, Preprocess
from edgekd.bundle.samples import SAMPLES, Samples, read_samples
from edgekd.devices._protocol import DeviceSession, Fingerprint, Job, Measurement, Outcome, Progress
from edgekd.errors import ConfigurationError, MissingError, Place, UsageError, printable
from edgekd.evidence import Figure
from edgekd.export.answers import read_outputs, save_inputs
from edgekd.export.integer import float_figure, float_operators
from edgekd.export.tensors import answers_of, to_model_inputs
from edgekd.ir.backends import runtimes
from edgekd.measure.conditions import busy_when_measured, cores_of, load_of, too_busy
from edgekd.measure.figures import figures_for_limits, file_figures
from edgekd.measure.sentinel import is_unstable, judge_measured
from edgekd.measure.sequential import measure_until
from edgekd.records import Digest, Record, Shown
from edgekd.store.certificate import CERTIFICATE, Certificate
from edgekd.store.schema import read_record
from edgekd.targets.target import Limit
from edgekd.targets.verdict import Answer, Verdict, judge
from edgekd.tasks._protocol import Rows

__all__ = ["VerifyLine", "VerifyOutcome", "VerifyReport", "read_bundle", "read_certificate", "verify_bundle"]

_MOST_PROCESSES = 20
_PREFIX = 16  # hexadecimal digits of a digest that are enough to compare by
_OF_THE_FILE = ("size.", "operators.")
_CLAIMS = ("digest", "files and hashes", "parity", "labels", "figures")  # what fails where a bundle isn't what it says


class VerifyOutcome(str, Enum):
    """Result of a check."""

    HOLDS = "holds"
    FAILS = "fails"
    UNSTABLE = "unstable"
    NOT_REPEATED = "not repeated"
    REPORTED = "reported only"


class VerifyLine(Record):
    """A line of the report."""

    name: str
    found: str
    answer: VerifyOutcome


class VerifyReport(Shown):
    """All checks of a bundle."""

    schema_: Literal["edgekd.verify/1"] = Field(default="edgekd.verify/1", alias="schema")
    bundle: str
    sha256: Digest  # of the certificate, and so of all that it lists
    checks: tuple[VerifyLine, ...]
    verdict: Verdict | None  # on this machine's fresh figures

    @property
    def exit_code(self) -> int:
        """0 nothing fails, 7 the bundle isn't what it says; 5 a budget fails, 6 too noisy, here or in the certificate.

        What this machine can't repeat is said and fails nothing.
        """
        failed = [check.name for check in self.checks if check.answer is VerifyOutcome.FAILS]
        if any(name in _CLAIMS for name in failed):
            return 7
        if failed:
            return 5
        return 6 if any(check.answer is VerifyOutcome.UNSTABLE for check in self.checks) else 0

    def lines(self) -> list[str]:
        """Text for a person, a check a line."""
        width = max(len(check.name) for check in self.checks)
        return [f" {check.name:<{width}}  {check.found}   {check.answer.value}" for check in self.checks]


def read_certificate(folder: Path) -> Certificate:
    """The certificate of a bundle: what its other files are checked against. Raises ConfigurationError on none."""
    if not (folder / CERTIFICATE).is_file():
        below = folder / "bundle"
        what, remedy = f"is not a bundle (it has no {CERTIFICATE})", "give the folder that `edgekd export` wrote"
        if not folder.exists():
            what = "no such folder"
        elif (below / CERTIFICATE).is_file():
            remedy = f"this run's bundle lies in it: give {below}"
        elif (folder / PREPROCESS).is_file():
            what, remedy = "was exported without a certificate", "export it again with --target, which certifies it"
        raise ConfigurationError.one(what, remedy, Place(str(folder)))
    return read_record(folder / CERTIFICATE, Certificate)


def read_bundle(folder: Path) -> tuple[Certificate, Preprocess]:
    """Certificate and outside of a bundle, unchecked. Raises ConfigurationError where it is none."""
    return read_certificate(folder), read_record(folder / PREPROCESS, Preprocess)


class _Answers(NamedTuple):
    samples: Samples
    given: Rows


def verify_bundle(
    folder: Path,
    session: DeviceSession,
    scratch: Path,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    digest: str | None = None,
) -> VerifyReport:
    """Run every check that this machine can. ``digest`` is what the bundle should have, or its first 16 digits or more.

    Raises ConfigurationError on a folder that is no bundle or contradicts itself, UsageError on a ``digest`` that is
    none, MissingError where its runtime is not there, Interrupted.
    """
    certificate, found = read_certificate(folder), bundle_digest(folder)
    checks = [_digest(found, digest), *_files(folder, certificate)]
    verdict = None
    if not any(check.answer is VerifyOutcome.FAILS for check in checks):
        _require_runtime(certificate.backend, session.describe())
        _, outside = read_bundle(folder)
        require_sound(certificate, outside, folder)
        job = Job(artefact=Artefact.of(folder / certificate.model), backend=certificate.backend)
        parity, answers = _parity(folder, certificate, outside, session, job, scratch)
        checks.append(parity)
        if answers is not None:
            with sound(folder / SAMPLES):
                checks += _labels(certificate, answers)
        verdict, budgets = _budgets(folder, certificate, session, job, progress, stop)
        checks += budgets
    if busy := busy_when_measured(certificate.load_average, certificate.machine_cores):
        checks.append(VerifyLine(name="load", found=busy, answer=VerifyOutcome.REPORTED))
    checks.append(
        VerifyLine(
            name="accuracy",
            found=f"{certificate.accuracy.value:.2%} on the {certificate.accuracy.split} split, not in the bundle",
            answer=VerifyOutcome.NOT_REPEATED,
        )
    )
    if certificate.lesser is not None:
        text = f"{certificate.shortfall()}; not certified"
        checks.append(VerifyLine(name="certificate", found=text, answer=VerifyOutcome.HOLDS))
    elif not certificate.certified:
        unsure = certificate.verdict.answer is Answer.UNSTABLE
        said = VerifyOutcome.UNSTABLE if unsure else VerifyOutcome.FAILS
        checks.append(VerifyLine(name="certificate", found=f"not certified: {certificate.shortfall()}", answer=said))
    return VerifyReport(bundle=str(folder), sha256=found, checks=tuple(checks), verdict=verdict)


def _require_done(outcome: Outcome, detail: str) -> None:
    """Raises MissingError where this machine could not run the model to its end: that says nothing of the bundle."""
    if outcome in (Outcome.OUT_OF_MEMORY, Outcome.HUNG) or "SIGKILL" in detail:
        raise MissingError(
            f"this machine could not run the model: {outcome.value}: {detail}",
            "free memory, or wait until other work is done, and verify again",
        )


def _require_runtime(backend: Backend, here: Fingerprint) -> None:
    if backend.runtime not in here.runtimes:
        known = runtimes().get(backend.runtime)
        raise MissingError(
            f"its files are as certified, but there is no {backend.runtime} on this device to check more",
            f"there: pip install {known.package}" if known else "this edgekd does not know it: take a later one",
        )


def _digest(found: Digest, wanted: str | None) -> VerifyLine:
    if wanted is None:
        return VerifyLine(name="digest", found=found, answer=VerifyOutcome.REPORTED)
    asked = wanted.lower().removeprefix("sha256:")
    if not _PREFIX <= len(asked) <= len(found) or not set(asked) <= set("0123456789abcdef"):
        raise UsageError(
            f"digest {wanted}: {_PREFIX} to {len(found)} hexadecimal digits are expected",
            "give the digest that `edgekd export` printed",
        )
    if found.startswith(asked):
        return VerifyLine(name="digest", found=found, answer=VerifyOutcome.HOLDS)
    return VerifyLine(name="digest", found=f"{found}, not {asked}", answer=VerifyOutcome.FAILS)


def _files(folder: Path, certificate: Certificate) -> list[VerifyLine]:
    contents = contents_of(folder, certificate)
    found = "; ".join([f"{contents.sound} of {len(certificate.files)}", *contents.problems])
    answer = VerifyOutcome.FAILS if contents.problems else VerifyOutcome.HOLDS
    checks = [VerifyLine(name="files and hashes", found=found, answer=answer)]
    if contents.hidden:
        text = f"not covered: {printable(', '.join(contents.hidden))}"
        checks.append(VerifyLine(name="hidden files", found=text, answer=VerifyOutcome.REPORTED))
    return checks


def _parity(
    folder: Path, certificate: Certificate, outside: Preprocess, session: DeviceSession, job: Job, scratch: Path
) -> tuple[VerifyLine, _Answers | None]:
    samples = read_samples(folder / SAMPLES, certificate.task)
    with sound(folder / PREPROCESS):
        inputs = to_model_inputs(samples.inputs, certificate.task, outside.export, outside.input_encoding)
    result = session.run(job, save_inputs(inputs, scratch))
    _require_done(result.outcome, result.detail)
    if result.outcome is not Outcome.OK:
        text = f"{result.outcome.value}: {result.detail}"
        return VerifyLine(name="parity", found=text, answer=VerifyOutcome.FAILS), None
    raw = read_outputs(result, len(samples.inputs), certificate.task, outside.export)
    with sound(folder / PREPROCESS):
        answers = answers_of(raw, certificate.task, outside.export, outside.output_encoding)
        agree = int(np.sum(agreeing(certificate.task, answers, samples.answers)))
        largest = largest_difference(certificate.task, answers, samples.answers)
    parity = certificate.parity
    promised = (parity.agree if parity.alike is None else parity.alike) / parity.samples
    # another CPU may round differently: the certificate's own agreement, less one answer in a hundred (and one of few),
    # must be kept
    fewest = promised * len(answers) - max(1.0, 0.01 * len(answers))
    answer = VerifyOutcome.HOLDS if agree >= fewest else VerifyOutcome.FAILS
    found = f"{agree} of {len(answers)} answers as the student's, largest difference {largest:.3g}"
    return VerifyLine(name="parity", found=found, answer=answer), _Answers(samples, answers)


def _labels(certificate: Certificate, answers: _Answers) -> list[VerifyLine]:
    """The samples' own labels against the accuracy that is claimed: a model can't be much worse on them."""
    claim = labels_claimed(certificate, answers.given, answers.samples.labels)
    if claim is None:
        return []
    answer = VerifyOutcome.HOLDS if claim.believable else VerifyOutcome.FAILS
    return [VerifyLine(name="labels", found=claim.words, answer=answer)]


def _budgets(
    folder: Path,
    certificate: Certificate,
    session: DeviceSession,
    job: Job,
    progress: Progress | None,
    stop: Callable[[], bool],
) -> tuple[Verdict | None, list[VerifyLine]]:
    target, here = certificate.target.but(accuracy=None), session.describe()
    counted = list(file_figures(target, job.artefact))
    if target.fully_integer:
        with sound(folder / certificate.model):
            operators = float_operators(job.artefact.path)
        counted += [float_figure(operators, job.artefact.sha256)] if operators is not None else []
    if differs := certificate.fingerprint.changed(here, certificate.backend):
        said = f"measured on another machine or set-up ({', '.join(differs)}): measure here with `edgekd bench`"
        of_file = {
            one.limit: _budget_check(one.limit, one.figure, one.answer, "") for one in judge(target, counted).limits
        }
        checks = [
            of_file[limit]
            if limit.metric.startswith(_OF_THE_FILE)
            else VerifyLine(name=str(limit), found=said, answer=VerifyOutcome.NOT_REPEATED)
            for limit in target.limits
        ]
        return None, [*checks, *_figures(certificate, counted, sure=True)]
    require_plan(certificate, folder)

    def figures(measurement: Measurement) -> list[Figure]:
        measured = figures_for_limits(target, measurement, job.artefact)
        return list({figure.metric: figure for figure in (*counted, *measured)}.values())

    def decided(measurements: Sequence[Measurement]) -> bool:
        return judge_measured(target, figures(measurements[0]), measurements[0]).answer is not Answer.UNSTABLE

    (measured,) = measure_until(
        session, [job], first_batch(certificate), decided, _MOST_PROCESSES, progress, stop, longest_s=LONGEST_S
    )
    if measured.outcome is not Outcome.OUT_OF_MEMORY or certificate.plan.memory_limit_bytes is None:
        _require_done(measured.outcome, measured.detail)
    verdict = judge_measured(target, figures(measured), measured)
    load, cores = load_of([measured]), cores_of([measured])
    busy = load is not None and cores is not None and too_busy(load, cores)
    detail = measured.detail or "this machine does not tell it"
    fresh = f"{len(measured.processes)} fresh processes"
    checks = [_budget_check(one.limit, one.figure, one.answer, fresh, detail) for one in verdict.limits]
    return verdict, [
        *checks,
        *_figures(certificate, figures(measured), not (busy or is_unstable(measured)), _now(measured, here)),
    ]


def _figures(certificate: Certificate, found: Sequence[Figure], sure: bool, now: str = "") -> list[VerifyLine]:
    """The certificate's figures against those found now: a file's exactly, a machine's by their order.

    A time that disagrees is told beside how the machine was, and proves nothing: the budgets are judged by fresh ones.
    """
    claims = figures_claimed(certificate, found)
    wrong = [claim for claim in claims if not claim.believable]
    if not claims:
        return []
    words = "; ".join(claim.words for claim in wrong) or f"{len(claims)} as certified"
    if now and any(claim.timed for claim in wrong):
        words += f" (now: {now})"
    certain = any(claim.exact or (sure and not claim.timed) for claim in wrong)
    answer = VerifyOutcome.HOLDS if not wrong else VerifyOutcome.FAILS if certain else VerifyOutcome.UNSTABLE
    return [VerifyLine(name="figures", found=words, answer=answer)]


def _now(measured: Measurement, here: Fingerprint) -> str:
    """State of the machine: what a time depends on beside the model."""
    clocks = [p.before.clock_mhz for p in measured.processes if p.before is not None and p.before.clock_mhz]
    load, cores = load_of([measured]), cores_of([measured])
    parts = [f"clock {np.median(clocks):.0f} MHz"] if clocks else []
    parts += [f"governor {here.governor}"] if here.governor else []
    parts += [f"load {load:.1f} on {cores} cores"] if load is not None and cores is not None else []
    return ", ".join(parts)


def _budget_check(limit: Limit, figure: Figure | None, answer: Answer, fresh: str, detail: str = "") -> VerifyLine:
    said = {
        Answer.HOLDS: VerifyOutcome.HOLDS,
        Answer.FAILS: VerifyOutcome.FAILS,
        Answer.UNSTABLE: VerifyOutcome.UNSTABLE,
        Answer.UNKNOWN: VerifyOutcome.FAILS,
    }[answer]
    if not limit.hard and said is not VerifyOutcome.HOLDS:
        said = VerifyOutcome.REPORTED
    if figure is None:
        found = f"no figure: {detail}"
    else:
        exact = figure.low is None  # counted, not timed
        found = str(figure) if exact else f"{figure}, {fresh}"
    return VerifyLine(name=str(limit), found=found, answer=said)
