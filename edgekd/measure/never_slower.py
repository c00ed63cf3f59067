"""Never-slower check: a compressed artefact against its float baseline on the same device and backend.

Runtimes name operators differently at each precision (Conv, QLinearConv, `Convolution (NHWC, QC8)`), so operators are
mapped to families first and their times added up per family. The loss is the extra cost of the families that got
slower.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from edgekd.devices._protocol import Measurement, OperatorTime
from edgekd.ir.operators import PROFILE_FAMILIES
from edgekd.measure.compare import ALPHA, Comparison, compare
from edgekd.records import Record
from edgekd.units import format_us

__all__ = ["Regression", "TwinComparison", "family_of", "never_slower", "regressions"]

_KERNEL = re.compile(r"jit|brg|ref|acl|gemm_|unknown")  # a kernel's name, which does not identify the operator
_NOT_WORTH_NAMING = 0.02  # of the whole loss


class Regression(Record):
    """A family of operators that costs more in the compressed artefact."""

    family: str
    kind: str  # the runtime's own kind where all of them share one, else the family
    count: int
    extra_us: float
    share: float  # of the whole loss

    def __str__(self) -> str:
        return f"{self.count} {self.kind} +{format_us(self.extra_us)} = {self.share:.0%} of the loss"


class TwinComparison(Record):
    """Comparison with float32: ``comparison.ratio`` is the compressed one's time as a multiple."""

    comparison: Comparison
    faster: bool  # by more than the noise
    smaller: bool
    size_ratio: float | None  # compressed file over float file
    regressions: tuple[Regression, ...]  # worst first; empty without profiles

    @property
    def regressed(self) -> tuple[str, ...]:
        """Regressions as text, worst first."""
        return tuple(map(str, self.regressions))


def never_slower(
    float_twin: Measurement,
    compressed: Measurement,
    noise: float | None = None,
    float_bytes: int | None = None,
    compressed_bytes: int | None = None,
    alpha: float = ALPHA,
) -> TwinComparison:
    """Compare a compressed model with its float baseline: faster, or smaller? Raises Unstable where either has no
    timings.

    ``alpha`` is smaller where they are two of many (`edgekd.measure.compare.alpha_among`). Operators are compared where
    both were measured with ``profile``.
    """
    comparison = compare(compressed, float_twin, noise, alpha)
    ratio = compressed_bytes / float_bytes if float_bytes and compressed_bytes else None
    return TwinComparison(
        comparison=comparison,
        faster=comparison.distinguishable and comparison.ratio < 1.0,
        smaller=ratio is not None and ratio < 1.0,
        size_ratio=ratio,
        regressions=regressions(float_twin.operators, compressed.operators),
    )


def regressions(before: Sequence[OperatorTime], after: Sequence[OperatorTime]) -> tuple[Regression, ...]:
    """Families of operators that got slower, worst first; never single operators. Empty where one profile is empty."""
    if not before or not after:
        return ()
    old, new = _by_family(before), _by_family(after)
    extra = {family: _time_us(rows) - _time_us(old.get(family, [])) for family, rows in new.items()}
    loss_us = sum(value for value in extra.values() if value > 0.0)
    worse = sorted((family for family, value in extra.items() if value > 0.0), key=lambda family: -extra[family])
    return tuple(
        Regression(
            family=family,
            kind=_word(family, new[family]),
            count=len(new[family]),
            extra_us=extra[family],
            share=extra[family] / loss_us,
        )
        for family in worse
        if extra[family] / loss_us >= _NOT_WORTH_NAMING
    )


def family_of(operator: OperatorTime) -> str:
    """Family of an operator by its kind, or by its name where the kind names a kernel; else the kind itself."""
    kind = operator.kind.lower()
    # a convolution with quantized arithmetic is a convolution
    if re.search(r"qlinear|quantized|fake_?quant", kind):
        kind = re.sub(r"qlinear|quantized", "", kind)
    texts = (kind, operator.name.lower()) if _KERNEL.match(kind) else (kind,)
    for text in reversed(texts):
        for pattern, family in PROFILE_FAMILIES:
            if re.search(pattern, text):
                return family
    return operator.kind


def _word(family: str, operators: Sequence[OperatorTime]) -> str:
    kinds = {operator.kind for operator in operators}
    only = next(iter(kinds))
    return only if len(kinds) == 1 and re.fullmatch(r"\w+", only) and not _KERNEL.match(only.lower()) else family


def _by_family(operators: Sequence[OperatorTime]) -> dict[str, list[OperatorTime]]:
    families: dict[str, list[OperatorTime]] = defaultdict(list)
    for operator in operators:
        families[family_of(operator)].append(operator)
    return families


def _time_us(operators: Sequence[OperatorTime]) -> float:
    return sum(operator.time_us for operator in operators)
