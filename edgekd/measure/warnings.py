"""Cautions about a measurement, all in one place, each with its remedy."""

from __future__ import annotations

from edgekd.records import Record

__all__ = [
    "Caution",
    "busy",
    "clock_fell",
    "disturbed",
    "heating",
    "moved",
    "noisy",
    "not_cool",
    "spread",
    "swapped",
    "throttled",
    "throttled_by_device",
    "too_few",
]


class Caution(Record):
    """Reason to doubt a measurement, and the next step."""

    code: str
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.message}. {self.remedy}."


def too_few(processes: int) -> Caution:
    """Fewer processes than a verdict needs."""
    return Caution(
        code="too-few",
        message=f"{processes} process{'es' if processes != 1 else ''} measured; a verdict needs 5",
        remedy="Measure with --processes 5 or more",
    )


def noisy(mark: float) -> Caution:
    """The median call is far above the 5th percentile."""
    return Caution(
        code="noisy",
        message=f"noisy machine: the median call takes {mark:.2f}x the 5th percentile",
        remedy="Close other programs, or rank by the order, which uses the 5th percentile",
    )


def spread(noise: float) -> Caution:
    """Identical artefacts differ a lot."""
    return Caution(
        code="spread",
        message=f"identical models differ by {noise:.1%} here",
        remedy="Smaller differences can't be measured; stop other programs, or measure more processes",
    )


def busy(load_average: float, cores: int) -> Caution:
    """The load average was high before this began: other work, or a program that ran a moment before."""
    return Caution(
        code="busy",
        message=f"the machine was busy when this began: load average {load_average:.1f} on {cores} cores",
        remedy="See what else runs there, and wait until it is done",
    )


def moved(by: float) -> Caution:
    """The sentinel's level shifted during the batch."""
    return Caution(
        code="moved",
        message=f"the machine's speed shifted by {by:.1%} between the earlier and the later half of the processes",
        remedy="Let it cool down, fix the clock (governor `performance`), or stop other programs, then measure again",
    )


def disturbed(by: float) -> Caution:
    """The sentinel was slow in a process or two, while the machine's level stayed."""
    return Caution(
        code="disturbed",
        message=f"something else ran for a while: processes of a fixed model differ by {by:.1%}",
        remedy="Medians over processes bear one such process; close other programs where the figures matter",
    )


def throttled(mean: float, tail: float) -> Caution:
    """A quota or a limit shows only in mean and tail."""
    return Caution(
        code="throttled",
        message=f"mean {mean:.1f}x and p99 {tail:.1f}x the 5th percentile: calls are held up now and then",
        remedy="Look for a CPU quota (nr_throttled in the cgroup's cpu.stat) or a power limit, and budget the tail",
    )


def heating(by: float) -> Caution:
    """Rounds get slower inside every process."""
    return Caution(
        code="heating",
        message=f"calls get {by:.0%} slower within each process",
        remedy="The clock falls as it heats up: cool it, or measure with longer pauses",
    )


def swapped(pages: int) -> Caution:
    """The device was short of memory while a process was timed."""
    return Caution(
        code="swapped",
        message=f"the device swapped {pages} pages around one process: memory was short, and waiting is in the times",
        remedy="Close other programs there, or measure fewer models at once",
    )


def clock_fell(by: float) -> Caution:
    """A core's clock was lower after the work than before it."""
    return Caution(
        code="clock-fell",
        message=f"the clock fell by {by:.0%} while measuring",
        remedy="Cool the device, fix its clock (governor `performance`), or keep it to cores of one kind (`on_cores`)",
    )


def throttled_by_device(reason: str, processes: int, of: int) -> Caution:
    """The device itself reports that it slowed down. ``reason`` is its word for it."""
    return Caution(
        code="throttled-by-device",
        message=f"the device slowed itself down ({reason}) in {processes} of {of} processes",
        remedy="Cool it, and see that its power supply is strong enough; then measure again",
    )


def not_cool(reason: str) -> Caution:
    """The condition of the device file's `cooling` was not reached."""
    return Caution(
        code="not-cool",
        message=f"it began warmer than `cooling` in the device file asks ({reason})",
        remedy="Cool it better, or raise `below_c` or `patience_s` there",
    )
