"""The model card: the certificate in words, for a person who was not there."""

from __future__ import annotations

from edgekd.bundle.front_matter import front_matter
from edgekd.measure.conditions import busy_when_measured
from edgekd.store.certificate import Certificate, OtherFormat
from edgekd.targets.verdict import Answer
from edgekd.tasks._protocol import TaskSpec

__all__ = ["card_text"]

_MOST_LABELS = 20


def card_text(certificate: Certificate) -> str:
    """Markdown. Every figure is the certificate's; nothing is computed here."""
    c = certificate
    task, fingerprint, precision = c.task, c.fingerprint, c.candidate.plan.precision
    extensions = ", ".join(fingerprint.extensions) or "none listed"
    scored = f"{c.accuracy.split} split, {c.accuracy.samples} samples, {c.accuracy.method}"
    lines = [
        *front_matter(task, c.format, precision),
        f"# {task.name}: {c.candidate.family} for {c.target.name}",
        "",
        c.summary() + ("" if c.certified else f" . **not certified**: {c.shortfall()}"),
        *(line for caution in c.cautions for line in ("", f"**Caution**: {caution}.")),
        "",
        "| what | value |",
        "|---|---|",
        f"| task | {task.kind}, {_asked(task)}, input {task.input} |",
        *([f"| labels | {labels} |"] if (labels := _labels(task)) else []),
        f"| student | {c.candidate.family}{f': {c.candidate.arch}' if c.candidate.arch.choices else ''} |",
        f"| precision | {precision.value}: {precision.arithmetic(c.format)} |",
        *([f"| computed in float | {c.in_float} |"] if c.in_float else []),
        f"| teacher | {c.teacher} |",
        f"| certified file | `{c.model}` in {c.backend}, {_threads(c.target.threads)}, called as in `example.py` |",
        f"| device | {fingerprint.cpu} ({fingerprint.architecture}), {fingerprint.os} |",
        f"| instruction sets | {extensions} |",
        *([f"| load | {busy} |"] if (busy := busy_when_measured(c.load_average, c.machine_cores)) else []),
        f"| accuracy | {c.accuracy.value:.2%} {task.metric.name}, {scored} |",
        *([f"| the model as it came | {c.own.value:.2%}, same samples, in PyTorch |"] if c.own else []),
        *(f"| {name} | {value:.2%} |" for name, value in c.accuracy.parts.items()),
        *(f"| {name} | {value:.4g} |" for name, value in c.accuracy.errors.items()),
        f"| agreement with the PyTorch student at {precision.value} | {c.parity.agree} of {c.parity.samples} answers, "
        f"largest difference {c.parity.largest:.3g} {c.parity.unit} |",
        "",
        "## Budgets",
        "",
        "| budget | figure | margin | answer |",
        "|---|---|---|---|",
    ]
    for verdict in c.verdict.limits:
        figure = str(verdict.figure) if verdict.figure else "no figure"
        margin = "" if verdict.margin is None else f"{verdict.margin:.0%}"
        answer = verdict.answer.value if verdict.limit.hard else f"{verdict.answer.value} (reported only)"
        lines.append(f"| {verdict.limit} | {figure} | {margin} | {answer} |")
    if not c.verdict.limits:
        lines.append("| none was set | | | |")
    lines += ["", "## Figures", "", "| figure | value | kind | method |", "|---|---|---|---|"]
    above = ""
    for f in c.figures:
        lines.append(f"| {f.metric} | {f} | {f.kind.value} | {'as above' if f.method == above else f.method} |")
        above = f.method
    if c.others:
        lines += ["", "## Other formats", "", "Not timed, and not certified.", "", "| format | answers |", "|---|---|"]
        lines += [f"| {other.format.value} | {_answers(other)} |" for other in c.others]
    lines += [
        "",
        "## What this does not say",
        "",
        "The figures hold for the device, runtime version, thread count and load named above. Int8 answers can differ "
        "between instruction sets, so the certificate does not carry over to another CPU: measure again there.",
    ]
    if c.verdict.answer is not Answer.HOLDS:
        lines += ["", f"Not every budget is known to hold: {c.verdict.answer.value}."]
    return "\n".join(lines) + "\n"


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count != 1 else ''}"


def _asked(task: TaskSpec) -> str:
    if task.plain:
        return f"{task.head.classes} classes"
    called = {"multilabel": "labels", "regression": "numbers"}
    return ", ".join(
        f"{head.name} ({head.kind}, {head.classes} {called.get(head.kind, 'classes')})" for head in task.heads
    )


def _labels(task: TaskSpec) -> str:
    """Names of the classes, in the order of the answer, as far as they are known."""
    named = [", ".join(head.labels[:_MOST_LABELS]) + _more(head.labels) for head in task.heads if head.labels]
    return "; ".join(label.replace("|", r"\|").replace("\n", " ") for label in named)


def _more(labels: tuple[str, ...]) -> str:
    return f" and {len(labels) - _MOST_LABELS} more: see `preprocess.json`" if len(labels) > _MOST_LABELS else ""


def _answers(other: OtherFormat) -> str:
    if other.parity is None:
        return other.detail
    agree = f"{other.parity.agree} of {other.parity.samples}"
    said = f"{agree} as the PyTorch student's at the same precision, in {other.backend}"
    return f"{said}: {other.detail}" if other.detail else said
