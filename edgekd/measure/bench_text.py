"""A bench as a person reads it: one screen, 80 columns, the doubt first where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgekd.devices._protocol import Outcome
from edgekd.evidence import EvidenceKind, Figure
from edgekd.units import format_bytes

if TYPE_CHECKING:
    from edgekd.measure.bench import BenchReport, BenchRow, BenchTwin

__all__ = ["bench_lines"]

_COLUMNS = 80


def bench_lines(report: BenchReport) -> list[str]:
    """The whole answer."""
    return list(_lines(report))


def _lines(report: BenchReport) -> Iterator[str]:
    if report.quality.unstable or report.undecided:
        yield "Too noisy to decide everything: " + (
            "; ".join(f"{a} / {b}" for a, b in report.undecided) or "the machine changed while measuring"
        )
    yield from _wrapped(_heading(report))
    yield ""
    backends = list(dict.fromkeys(row.backend for row in report.rows))
    width = min(24, max(len(row.model) for row in report.rows))
    yield f" {'model':<{width}} {'p50 us':>7} {'95 % interval':>16} {'p95 us':>7} {'+memory':>8} {'file':>8}  order"
    for backend in backends:
        if len(backends) > 1:
            yield f"{backend}"
        for row in report.rows:
            if row.backend == backend:
                yield from _row(row, width)
    yield ""
    yield from _wrapped(_noise(report))
    for twin in report.twins:
        yield from _wrapped(_twin(twin))
    if any(not twin.result.faster and not twin.result.regressions for twin in report.twins):
        yield "Which operators: edgekd bench --profile"
    if any(row.measurement.operators for row in report.rows):
        yield from _profiles(report)
    for caution in report.quality.cautions:
        yield from _wrapped(f"note: {caution}")


def _heading(report: BenchReport) -> str:
    found, plan = report.fingerprint, report.plan
    notable = [name for name in ("avx2", "avx512f", "asimddp", "i8mm") if name in found.extensions]
    dots: list[str] = [name for name in ("avx_vnni", "avx512_vnni", "amx_int8") if name in found.extensions]
    isa = ", ".join([*notable, *(dots or (["no vnni"] if found.saturates_int8 else []))])
    runtimes = [f"{name} {found.runtimes[name]}" for name in dict.fromkeys(r.backend.runtime for r in report.rows)]
    load = "closed loop" if plan.load.pattern == "closed" else f"{plan.load.rate_hz:g} calls/s"
    threads = f"{plan.threads} thread{'s' if plan.threads != 1 else ''}"
    kinds = {row.measurement.kind for row in report.rows} - {EvidenceKind.MEASURED}
    return " . ".join(
        [
            report.device,
            f"{found.cpu} ({isa})" if isa else found.cpu,
            *runtimes,
            load,
            threads,
            f"{report.processes} processes each, interleaved",
            *(kind.value for kind in kinds),
        ]
    )


def _row(row: BenchRow, width: int) -> Iterator[str]:
    name = row.model if len(row.model) <= width else row.model[: width - 3] + "..."
    size = format_bytes(row.size_bytes)
    if row.outcome is not Outcome.OK:
        yield f" {name:<{width}} {row.outcome.value:>7}  {size}"
        yield from _wrapped(f"   {row.detail}" if row.detail else "   the runtime gave no reason")
        return
    figures = {figure.metric: figure for figure in row.figures}
    p50, p95, memory = figures["latency.p50"], figures["latency.p95"], figures["memory.model"]
    line = (
        f" {name:<{width}} {_us(p50.value):>7} {_interval(p50):>16} {_us(p95.value):>7} "
        f"{format_bytes(memory.value):>8} {size:>8}  {row.order:>3}"
    )
    against = row.against_fastest
    if against is not None and against.distinguishable:
        line += f"  {against.ratio:.2f}x slower"
        if len(line) > _COLUMNS:
            line = line.replace(f"  {against.ratio:.2f}x slower", f"  {against.ratio:.2f}x")
    yield line


def _noise(report: BenchReport) -> str:
    noise = f"A/A noise {report.quality.noise:.1%}"
    timed = [row for row in report.rows if row.order]
    if len(timed) < 2:
        return f"{noise}."
    tied = [row for row in timed if sum(other.order == row.order for other in timed) > 1]
    if not tied:
        return f"{noise}: the difference{' is' if len(timed) == 2 else 's are'} real. The order is by the low quantile."
    groups = [[_short(row, report) for row in tied if row.order == place] for place in sorted({r.order for r in tied})]
    return f"{noise}: can't be told apart: " + "; ".join(" = ".join(group) for group in groups) + "."


def _twin(twin: BenchTwin) -> str:
    result = twin.result
    pair = f"{twin.compressed_model} against {twin.float_model} on {twin.backend}: "
    saved = ""
    if result.size_ratio is not None:
        change = 1 - result.size_ratio
        saved = f" It saves {change:.0%} of the file." if change > 0 else " The file isn't smaller either."
    if result.faster:
        return f"{pair}{result.comparison.words}.{saved}"
    word = result.comparison.words if result.comparison.distinguishable else "not faster (can't be told apart)"
    lost = f" {'; '.join(result.regressed[:3])}." if result.regressions else ""
    return f"{pair}{word} here.{lost}{saved}"


def _profiles(report: BenchReport) -> Iterator[str]:
    for row in report.rows:
        slowest = sorted(row.measurement.operators, key=lambda o: -o.time_us)[:5]
        if slowest:
            yield f"{row.model} on {row.backend}, slowest operators:"
        for operator in slowest:
            precision = f"  {operator.precision}" if operator.precision else ""
            yield f"  {_us(operator.time_us):>8} us  {operator.kind[:30]:<30} {operator.name[:24]}{precision}"[
                :_COLUMNS
            ]


def _short(row: BenchRow, report: BenchReport) -> str:
    return row.model if len({r.backend for r in report.rows}) == 1 else f"{row.model} ({row.backend})"


def _us(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _interval(figure: Figure) -> str:
    return f"[{_us(figure.lower)}, {_us(figure.upper)}]"


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, _COLUMNS, subsequent_indent="  ", break_on_hyphens=False, drop_whitespace=True)
