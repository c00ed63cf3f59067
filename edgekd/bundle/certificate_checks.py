"""Checks that a stranger's certificate can be obeyed: it doesn't contradict itself, and asks for no endless work."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from google.protobuf.message import Error as ProtobufError

from edgekd.bundle.preprocess import PREPROCESS, Preprocess
from edgekd.devices._protocol import MeasurePlan
from edgekd.errors import ConfigurationError, MissingError, Place, Problem
from edgekd.store.certificate import CERTIFICATE, Certificate
from edgekd.targets.verdict import Answer, judge
from edgekd.tasks._protocol import TaskSpec

__all__ = ["LONGEST_S", "first_batch", "require_plan", "require_sound", "sound"]

_AGAIN = "get the bundle again from who made it"
LONGEST_S = 900.0
_FIRST_PROCESSES = 5
"""What a measurement may take that a stranger's certificate asks for."""

_MOST_CALLS = 10_000  # ten times those of the longest plan of a search
_MOST_CLASSES, _MOST_VALUES = 1_000_000, 1 << 28
_DAMAGE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, struct.error)
"""What readers of flatbuffers, protobuf and arrays raise on bytes that were changed; none of them is edgekd's own."""


@contextmanager
def sound(path: Path) -> Iterator[None]:
    """Context for work on a file's content alone: ConfigurationError names the file where it can't be done.

    MissingError where this machine has too little memory for it.
    """
    try:
        yield
    except MemoryError as error:
        raise MissingError(
            f"{path}: there is not enough memory to check it: {str(error)[:200]}", "free some memory, and check again"
        ) from error
    except (*_DAMAGE, ProtobufError) as error:
        raise ConfigurationError.one(
            f"is damaged, or was never a bundle's: {type(error).__name__}: {str(error)[:200]}", _AGAIN, Place(str(path))
        ) from error


def require_sound(certificate: Certificate, outside: Preprocess, folder: Path) -> None:
    """Raises ConfigurationError where a bundle's records contradict themselves or each other."""
    place = str(folder / CERTIFICATE)
    problems = [Problem(what, _AGAIN, Place(place, field="task")) for what in _task(certificate.task)]
    problems += [Problem(what, _AGAIN, Place(place, field=field)) for field, what in _claims(certificate)]
    stated = [(one.name, one.dtype, one.shape[1:]) for one in outside.inputs]
    if stated != [(one.name, one.dtype, one.shape) for one in certificate.task.input.named]:
        where = Place(str(folder / PREPROCESS), field="inputs")
        problems.append(Problem("other inputs than the certificate's task has", _AGAIN, where))
    for field, encoding in (("input_encoding", outside.input_encoding), ("output_encoding", outside.output_encoding)):
        if encoding is not None and not (
            len(encoding.scale) == len(encoding.zero_point) == 1 and encoding.scale[0] > 0
        ):
            where = Place(str(folder / PREPROCESS), field=field)
            problems.append(Problem("one scale above 0 and one zero point are expected", _AGAIN, where))
    if problems:
        raise ConfigurationError(problems)


def first_batch(certificate: Certificate) -> MeasurePlan:
    """The certificate's plan with a few of its processes, which were several batches': more follow until decided."""
    return certificate.plan.but(processes=min(certificate.plan.processes, _FIRST_PROCESSES))


def require_plan(certificate: Certificate, folder: Path) -> None:
    """Raises ConfigurationError where the first batch of it would measure for a quarter of an hour, or more.

    A call takes as long as the model does, which the plan does not tell: their number is bounded too.
    """
    plan, place = first_batch(certificate), Place(str(folder / CERTIFICATE), field="plan")
    if plan.nominal_s > LONGEST_S or not math.isfinite(plan.nominal_s):
        raise ConfigurationError.one(
            f"measuring as it says takes {plan.nominal_s:.0f} s, and {LONGEST_S:.0f} s are the longest here",
            "measure it with edgekd bench",
            place,
        )
    if (calls := plan.processes * plan.rounds * plan.min_calls) > _MOST_CALLS:
        raise ConfigurationError.one(
            f"asks for {calls} calls at least, and {_MOST_CALLS} are the most here",
            "measure it with edgekd bench",
            place,
        )
    if plan.load.busy > certificate.fingerprint.cores:
        raise ConfigurationError.one(
            f"keeps {plan.load.busy} cores busy of {certificate.fingerprint.cores}", _AGAIN, place
        )


def _task(spec: TaskSpec) -> Iterator[str]:
    channels = spec.input.shape[0] if spec.input.shape else 0
    if not channels or math.prod(spec.input.shape) > _MOST_VALUES:
        yield f"an input of {spec.input.shape} is no sample"
    if not {len(spec.input.mean), len(spec.input.std)} <= {1, channels} or min(spec.input.std, default=0.0) <= 0:
        yield "one mean and one std above 0 are expected, or one a channel"
    for head in spec.heads:
        if not 1 <= head.classes <= _MOST_CLASSES or head.objects > _MOST_CLASSES:
            yield f"head `{head.name}` of {head.classes} classes is no answer"


def _claims(certificate: Certificate) -> Iterator[tuple[str, str]]:
    """Contradictions between parts of the certificate that state the same thing, with their fields."""
    figures = {figure.metric: figure for figure in certificate.figures}
    if certificate.parity.samples < 1 or certificate.parity.agree > certificate.parity.samples:
        yield "parity", f"{certificate.parity.agree} of {certificate.parity.samples} samples agree"
    scored = figures.get("accuracy")
    if scored is None or scored.value != certificate.accuracy.value:
        yield "accuracy", "is another one than among the figures"
    if [one.limit for one in certificate.verdict.limits] != list(certificate.target.limits):
        yield "verdict", "is of other limits than the target's"
        return
    for claimed, judged in zip(
        certificate.verdict.limits, judge(certificate.target, certificate.figures).limits, strict=True
    ):
        if (claimed.answer is Answer.HOLDS and judged.answer is not Answer.HOLDS) or claimed.figure not in (
            None,
            judged.figure,
        ):
            yield "verdict", f"{claimed.limit} does not follow from the figures"
