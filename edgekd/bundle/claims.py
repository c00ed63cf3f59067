"""Claims of a certificate, held against what can be found out beside it: none of it needs the test split.

A certificate is a file of words. Its accuracy has to agree with the labels of the bundled samples, and its figures with
a fresh measurement: a file's exactly (but for what zlib makes of it, whose builds differ), a machine's by their order,
for the same machine may be busier another day. What is timed depends on its clock and its heat as well: a machine that
has throttled is slower than three times, and proves nothing against a certificate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from edgekd.evidence import Figure
from edgekd.store.certificate import Certificate
from edgekd.tasks._protocol import Rows
from edgekd.tasks.metrics.heads import metric_name, score_heads
from edgekd.tasks.rows import has_label

__all__ = ["Claim", "figures_claimed", "labels_claimed"]

_ERRORS = 4.0  # standard errors by which few samples may lie below the test split
_SPARE = 0.05  # by which validation samples may be harder than the test split
_TIMES = 3.0  # by which a machine may be slower, or use more, than on the day it was certified
_ALWAYS = ("latency.p5", "latency.p50", "memory.model", "size.file")
_EXACT = ("size.file", "operators.")
_NEARLY = ("size.download",)
_SHARE = 0.02  # by which builds of zlib make a file larger or smaller
_TIMED = ("latency.", "throughput", "energy.", "power.", "load.")
_MORE_IS_BETTER = ("throughput", "delegation")


class Claim(NamedTuple):
    """A claim: what was found beside what is certified, and whether both can be true."""

    words: str
    believable: bool
    exact: bool = False
    timed: bool = False


def labels_claimed(certificate: Certificate, answers: Rows, labels: Rows) -> Claim | None:
    """The certified accuracy against answers to labelled samples: one that is far above them is not believable.

    None where the task has a metric of its own, or a head without a labelled sample. Raises ValueError where answers
    and labels don't belong together.
    """
    spec, claimed = certificate.task, certificate.accuracy
    fields = {head.name: labels if spec.plain else labels[head.name] for head in spec.heads}
    if spec.metric.name != metric_name(spec.heads) or not all(
        has_label(head, fields[head.name]).any() for head in spec.heads
    ):
        return None
    score = score_heads(spec.heads, answers, labels)
    few = 1 / max(1, score.samples) + 1 / max(1, claimed.samples)
    share = (score.value * score.samples + claimed.value * claimed.samples) / (score.samples + max(1, claimed.samples))
    variance = share * (1 - share) if spec.plain else 0.25  # other metrics have no binomial's: its largest
    allowed = _ERRORS * math.sqrt(max(0.0, variance) * few) + _SPARE
    words = f"{score.value:.1%} {score.metric} on {score.samples} samples with labels, {claimed.value:.1%} certified"
    return Claim(words, score.value >= claimed.value - allowed)


def figures_claimed(certificate: Certificate, found: Sequence[Figure]) -> tuple[Claim, ...]:
    """Each certified figure that was found again."""
    asked = {*_ALWAYS, *(limit.metric for limit in certificate.target.limits)} - {"accuracy"}
    claimed = {figure.metric: figure for figure in certificate.figures if figure.metric in asked}
    return tuple(_claim(claimed[figure.metric], figure) for figure in found if figure.metric in claimed)


def _claim(claimed: Figure, found: Figure) -> Claim:
    words = f"{claimed.metric} {found}, {claimed} certified"
    if claimed.metric.startswith(_EXACT):
        return Claim(words, found.value == claimed.value, exact=True)
    if claimed.metric in _NEARLY:
        return Claim(words, math.isclose(found.value, claimed.value, rel_tol=_SHARE), exact=True)
    if claimed.metric in _MORE_IS_BETTER:
        believable = found.upper * _TIMES >= claimed.lower
    else:
        believable = found.lower <= max(claimed.upper, claimed.value) * _TIMES
    return Claim(words, believable, timed=claimed.metric.startswith(_TIMED))
