"""Text of a bench: one screen, as wide as the terminal, doubts first where there are any."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgekd.devices._protocol import Outcome
from edgekd.evidence import EvidenceKind, Figure
from edgekd.measure.benches.bench import name_of
from edgekd.measure.compare import times
from edgekd.units import format_bytes
from edgekd.wrapping import brief_names, columns

if TYPE_CHECKING:
    from edgekd.artefacts import Backend
    from edgekd.measure.benches.against import Against
    from edgekd.measure.benches.bench import BenchReport, BenchRow, BenchTwin

__all__ = ["bench_lines", "bench_markdown", "condition_lines"]


def bench_lines(report: BenchReport) -> list[str]:
    """Whole report as lines."""
    return list(_lines(report))


def condition_lines(report: BenchReport) -> list[str]:
    """Temperature and clock of each row: when its first process was warm, and after its last one's last round."""
    return [line for row in report.rows for line in _wrapped(f"{_name(row, report)}: {_conditions(row)}")]


def _lines(report: BenchReport) -> Iterator[str]:
    yield from _wrapped(_doubt(report))
    yield from _wrapped(_heading(report))
    yield ""
    yield from _table(report)
    yield ""
    yield from _wrapped(_noise(report))
    for row in report.rows:
        yield from _wrapped(_energy(row, report))
        yield from _wrapped(_placement(row, report))
    for twin in report.twins:
        yield from _wrapped(_twin(twin))
    if report.against is not None:
        for line in _against(report.against):
            yield from _wrapped(line)
    hidden = any(not twin.result.faster and not twin.result.regressions for twin in report.twins)
    if hidden and not report.plan.profile:
        yield "Which operators: edgekd bench --profile"
    if any(row.measurement.operators for row in report.rows):
        yield from _profiles(report)
    for line in _without_operators(report):
        yield from _wrapped(line)
    for caution in report.quality.cautions:
        yield from _wrapped(f"note: {caution}")


def _doubt(report: BenchReport) -> str:
    """Decisions that noise leaves open; empty where there are none."""
    if not (report.quality.unstable or report.undecided):
        return ""
    pairs = "; ".join(f"{a} / {b}" for a, b in report.undecided)
    moved = any(caution.code == "moved" for caution in report.quality.cautions)
    why = "the machine changed while measuring" if moved else f"the noise is {report.quality.noise:.1%}"
    return f"Too noisy to decide everything: {pairs or why}"


def _heading(report: BenchReport) -> str:
    found, plan = report.fingerprint, report.plan
    notable = [name for name in ("avx2", "avx512f", "asimddp", "i8mm") if name in found.extensions]
    dots: list[str] = [name for name in ("avx_vnni", "avx512_vnni", "amx_int8") if name in found.extensions]
    isa = ", ".join([*notable, *(dots or (["no vnni"] if found.saturates_int8 else []))])
    runtimes = [f"{name} {found.runtimes[name]}" for name in dict.fromkeys(r.backend.runtime for r in report.rows)]
    threads = f"{' and '.join(map(str, report.threads))} thread{'s' if report.threads != (1,) else ''}"
    asked = [f"{name or 'input'} {'x'.join(map(str, axes))}" for name, axes in report.rows[0].measurement.shapes]
    kinds = {row.measurement.kind for row in report.rows} - {EvidenceKind.MEASURED}
    return " . ".join(
        [
            report.device,
            f"{found.cpu} ({isa})" if isa else found.cpu,
            *runtimes,
            *([] if found.simulates else [str(plan.load), threads]),
            *asked,
            *(["times only, by the vendors' programs"] if found.times_only else []),
            f"one estimate each, by {found.simulator}; nothing ran"
            if found.simulates
            else f"{report.processes} processes each, interleaved",
            *(kind.value for kind in kinds),
        ]
    )


_HEAD = ("p50 us", "95 % interval", "p95 us", "+memory", "file", "order")


def _table(report: BenchReport) -> Iterator[str]:
    """Table with columns of minimal width; names are shortened (`brief_names`)."""
    cells = {index: _cells(row) for index, row in enumerate(report.rows) if row.outcome is Outcome.OK}
    widths = [max(len(text) for text in column) for column in zip(_HEAD, *cells.values(), strict=True)]
    slower = [_slower(row) for row in report.rows]
    room = columns() - 1 - sum(width + 1 for width in widths)
    longest = max(map(len, slower))
    names = max(len("model"), *(len(row.model) for row in report.rows))
    brief = longest > 0 and names + longest + 2 > room
    if brief:  # the word goes into the column's head
        slower = [text.removesuffix(" slower") for text in slower]
        longest = len("slower")
    name = min(names, room - (longest + 2 if longest else 0))
    briefly = brief_names([row.model for row in report.rows], name)
    name = max(len("model"), *map(len, briefly.values()))
    head = " ".join(f"{text:>{width}}" for text, width in zip(_HEAD, widths, strict=True))
    yield f" {'model':<{name}} {head}" + ("  slower" if brief else "")
    groups = list(dict.fromkeys((row.backend, row.threads) for row in report.rows))
    for group in groups:
        if len(groups) > 1:
            yield _group(group, report)
        for index, row in enumerate(report.rows):
            if (row.backend, row.threads) != group:
                continue
            label = f" {briefly[row.model]:<{name}} "
            if index in cells:
                texts = " ".join(f"{text:>{width}}" for text, width in zip(cells[index], widths, strict=True))
                yield (label + texts + (f"  {slower[index]}" if slower[index] else "")).rstrip()
            else:
                yield f"{label}{row.outcome.value:>6}"
                yield from _wrapped(f"   {row.detail or 'the runtime gave no reason'}")


def _group(group: tuple[Backend, int], report: BenchReport) -> str:
    backend, threads = group
    several = f", {threads} thread{'s' if threads != 1 else ''}" if len(report.threads) > 1 else ""
    return f"{backend}{several}"


def _name(row: BenchRow, report: BenchReport) -> str:
    return row.name(len(report.threads) > 1)


def _cells(row: BenchRow) -> tuple[str, ...]:
    figures = {figure.metric: figure for figure in row.figures}
    p50, p95, memory = figures["latency.p50"], figures["latency.p95"], figures.get("memory.model")
    sizes = (format_bytes(memory.value) if memory else "-", format_bytes(row.size_bytes))
    return (_us(p50.value), _interval(p50), _us(p95.value), *sizes, str(row.order))


def _slower(row: BenchRow) -> str:
    against = row.against_fastest
    return f"{times(against.ratio)} slower" if against is not None and against.distinguishable else ""


def _noise(report: BenchReport) -> str:
    """A/A noise, and the models it leaves undecided; empty where nothing was timed."""
    timed = [row for row in report.rows if row.order]
    noise = f"A/A noise {report.quality.noise:.1%}"
    if not report.quality.pair:
        noise = f"noise {report.quality.noise:.1%} (no A/A pair: the model that was there twice failed)"
    if not timed:
        return ""
    if report.fingerprint.simulates:
        return "Estimates have no noise: the order is by the estimate." if len(timed) > 1 else ""
    if len(timed) < 2:
        return f"{noise}."
    tied = [row for row in timed if sum(other.order == row.order for other in timed) > 1]
    if not tied:
        return (
            f"{noise}: the difference{' is' if len(timed) == 2 else 's are'} real. The order is by the 5th percentile."
        )
    groups = [[_short(row, report) for row in tied if row.order == place] for place in sorted({r.order for r in tied})]
    return f"{noise}: can't be told apart: " + "; ".join(" = ".join(group) for group in groups) + "."


def _against(against: Against) -> Iterator[str]:
    """Lines of changes, undecided ones, models that no longer run, and models in one report only."""
    alike = [change for change in against.changes if change.word == "alike"]
    for change in against.changes:
        name = name_of(change.model, change.backend, change.threads)
        clock = change.by_the_clock
        interval = f"[{clock.low:.2f}, {clock.high:.2f}]"
        if change.word in ("slower", "faster"):
            yield f"against {against.previous}: {name} is {clock.words} than it was {interval}"
        elif change.word == "unsure":
            yield (
                f"against {against.previous}: {name} takes {clock.ratio:.2f} of its time by the clock, but "
                f"{change.unsure}, so nothing is claimed"
            )
    if alike:
        yield f"against {against.previous}: {len(alike)} of {len(against.changes)} can't be told apart from before"
    parts = (("no longer runs", against.broken), ("not measured now", against.gone), ("not timed in it", against.new))
    for word, names in parts:
        if names:
            yield f"against {against.previous}: {word}: {', '.join(names)}"


def bench_markdown(report: BenchReport) -> list[str]:
    """Table as Markdown, with the lines above and below it."""
    lines = [line for text in (_doubt(report), _heading(report)) if text for line in (f"**{_plain(text)}**", "")]
    lines += ["| model | backend | " + " | ".join(_HEAD) + " | |", "|---" * 9 + "|"]
    for row in report.rows:
        cells = _cells(row) if row.outcome is Outcome.OK else (row.outcome.value, *[""] * 5)
        end = _slower(row) if row.outcome is Outcome.OK else row.detail
        group = _group((row.backend, row.threads), report)
        lines.append(f"| {' | '.join([_plain(row.model), group, *cells, _plain(end)])} |")
    said = [
        _noise(report),
        *(_energy(row, report) for row in report.rows),
        *(_placement(row, report) for row in report.rows),
        *map(_twin, report.twins),
    ]
    said += list(_against(report.against)) if report.against is not None else []
    said += _without_operators(report)
    said += [f"note: {caution}" for caution in report.quality.cautions]
    lines += ["", *(f"- {_plain(line)}" for line in said if line)]
    profiles = [line.rstrip() for line in _profiles(report)]
    return [*lines, *(["", "```", *profiles, "```"] if profiles else [])]


def _plain(text: str) -> str:
    """Escape text so that names and runtimes' messages can't break the table, nor be taken for markup."""
    return re.sub(r"([\\`*|<\[])", r"\\\1", " ".join(text.split()))


def _energy(row: BenchRow, report: BenchReport) -> str:
    """Energy of a call, or why it is unknown; empty where it wasn't requested."""
    figures = {figure.metric: figure for figure in row.figures}
    if "energy.per_inference" in figures:
        watts = f"{figures['power.average']}, idle {figures['power.idle']}"
        return f"energy of {_name(row, report)}: {figures['energy.per_inference']} a call; {watts}"
    detail = row.measurement.energy_detail
    return f"no energy of {_name(row, report)}: {detail}" if detail else ""


def _placement(row: BenchRow, report: BenchReport) -> str:
    """Operators that a delegate left out, which costs a copy at each end of each part; empty where it took all."""
    where = row.measurement.delegation
    if where is None or where.delegated == where.total or row.backend.provider == "builtin":
        return ""
    kinds = ", ".join(where.left_out)
    parts = f"{where.partitions} part{'s' if where.partitions != 1 else ''}"
    taken = f"{where.delegated} of {where.total} operators of {_name(row, report)} are delegated, in {parts}"
    return f"{taken}; left out: {kinds}"


def _twin(twin: BenchTwin) -> str:
    result = twin.result
    pair = f"{twin.compressed_model} against {name_of(twin.float_model, twin.backend, twin.threads)}: "
    saved = ""
    if result.size_ratio is not None:
        change = 1 - result.size_ratio
        saved = f" It saves {change:.0%} of the file." if change > 0 else " The file isn't smaller either."
    if result.faster:
        return f"{pair}{result.comparison.words}.{saved}"
    word = result.comparison.words if result.comparison.distinguishable else "not faster (can't be told apart)"
    lost = f" {'; '.join(result.regressed[:3])}." if result.regressions else ""
    return f"{pair}{word} here.{lost}{saved}"


def _without_operators(report: BenchReport) -> list[str]:
    rows = [row for row in report.rows if row.measurement.operators_detail]
    return [f"no operator times of {_name(row, report)}: {row.measurement.operators_detail}" for row in rows]


def _profiles(report: BenchReport) -> Iterator[str]:
    for row in report.rows:
        whole_us = sum(operator.time_us for operator in row.measurement.operators)
        slowest = sorted(row.measurement.operators, key=lambda operator: -operator.time_us)[:5]
        if slowest and whole_us:
            yield from _wrapped(f"{_name(row, report)}, slowest of {len(row.measurement.operators)} operators:")
        for operator in slowest:
            share = operator.time_us / whole_us if whole_us else 0.0
            kind = operator.kind.removeprefix("Delegate/")
            yield f"  {_us(operator.time_us):>8} us {share:>4.0%}  {kind[:38]:<38} {operator.name}"[
                : columns()
            ].rstrip()


def _conditions(row: BenchRow) -> str:
    processes = row.measurement.processes
    first, last = (processes[0].before, processes[-1].after) if processes else (None, None)
    parts = []
    for name, unit in (("temperature_c", "C"), ("clock_mhz", "MHz")):
        ends = [getattr(moment, name) for moment in (first, last) if moment is not None]
        if any(end is not None for end in ends):
            parts.append(" -> ".join("unknown" if end is None else f"{end:.0f} {unit}" for end in ends))
    parts += [row.measurement.state] if row.measurement.state else []
    if row.measurement.simulated is not None:
        return "estimated, not run"
    return ", ".join(parts) or ("neither temperature nor clock is reported here" if processes else "not timed")


def _short(row: BenchRow, report: BenchReport) -> str:
    groups = {(r.backend, r.threads) for r in report.rows}
    return row.model if len(groups) == 1 else f"{row.model} ({_group((row.backend, row.threads), report)})"


def _us(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _interval(figure: Figure) -> str:
    return "-" if figure.low is None else f"[{_us(figure.lower)}, {_us(figure.upper)}]"


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, columns(), subsequent_indent="  ", break_on_hyphens=False, drop_whitespace=True)
