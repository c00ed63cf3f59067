"""Meters of a machine's power: counters of energy, sensors of power, and an external meter's lines.

A meter is watched over a window of time; what counts is the power between the first and the last time it told
something new, so that a slow meter is told apart from a steady one. A reading that can't be right is an error with its
reason: a missing permission, text for a number, a battery that charges, a power no such machine draws, a meter that
stands still or is slower than the window. ``root`` is where /sys is looked for.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

__all__ = ["MeanPower", "Meter", "MeterError", "TooSlow", "Watch", "found_meter", "open_meter"]

Series = List[Tuple[float, float]]
_PLAUSIBLE_W = (0.001, 2000.0)
_LEAST_CHANGES = 8
_STEADY = 0.02  # a power that moves less than this is known however seldom it is told
_ROUNDING_W = 1e-9  # sums and products of the same readings differ by less
_PATIENCE_S = 2.0  # for an external meter's last line


class MeterError(Exception):
    """There is no meter, or it tells nothing that can be used."""


class TooSlow(MeterError):
    """A meter that told too few new values in the window, or too coarse ones; a longer window may do."""


class MeanPower(NamedTuple):
    """The mean power over a window.

    How far it can be off for the meter's own steps: by one at its ends where energy is counted; where power is told, by
    the middle of the steps it took from one reading to the next, which averages out as readings change, or by all that
    so few changes moved. 0: none changed.
    """

    watts: float
    seconds: float  # between the readings it was taken from
    readings: int
    unsure_w: float
    step_w: float


class Meter:
    """A source of power readings. ``read`` gives joules so far where it counts, up to ``wraps_at_j``; else watts."""

    def __init__(self, name: str, read: Callable[[], float], every_s: float, wraps_at_j: float = 0.0) -> None:
        self.name, self.read, self.every_s, self.wraps_at_j = name, read, every_s, wraps_at_j

    def watch(self) -> Watch:
        """Begin to watch. Raises MeterError where it can't be read."""
        return Watch(self)

    def mean_of(self, series: Series, begin_s: float, end_s: float) -> MeanPower:
        """The mean over readings of that window. Raises MeterError."""
        if self.wraps_at_j:
            return _counted(series, end_s - begin_s)
        return _averaged(series, begin_s, end_s)


class Watch:
    """A window in which a meter is read beside the work."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.series: Series = []
        self.error: Optional[Exception] = None
        self.over = threading.Event()
        self.begin_s = time.monotonic()
        self._look()
        if self.error is not None:
            raise MeterError("%s: %s" % (meter.name, self.error))
        self.thread = threading.Thread(target=self._go_on, daemon=True)
        self.thread.start()

    def stop(self) -> MeanPower:
        """End the window. Raises MeterError."""
        end_s = time.monotonic()
        self.over.set()
        self.thread.join()
        if self.error is not None:
            raise MeterError("%s: %s" % (self.meter.name, self.error))
        return self._seen(end_s)

    def cancel(self) -> None:
        """End it without an answer."""
        self.over.set()

    def _seen(self, end_s: float) -> MeanPower:
        seen = self.meter.mean_of(self.series, self.begin_s, end_s)
        if not _PLAUSIBLE_W[0] <= seen.watts <= _PLAUSIBLE_W[1]:  # nor is NaN
            raise MeterError("%s tells %.3g W, which can't be: is its unit another?" % (self.meter.name, seen.watts))
        return seen

    def _go_on(self) -> None:
        while not self.over.wait(self.meter.every_s) and self.error is None:
            self._look()

    def _look(self) -> None:
        try:
            value = self.meter.read()
            self.series.append((time.monotonic(), value))
        except (OSError, ValueError, MeterError, subprocess.SubprocessError) as error:
            self.error = error


class Lines(Meter):
    """An external meter: a file, pipe or serial port that gains lines ``timestamp watts``, by the Unix clock."""

    def __init__(self, path: str) -> None:
        super().__init__("lines of %s" % path, lambda: 0.0, 0.01)
        self.path = path

    def watch(self) -> Watch:
        return _LineWatch(self)


class _LineWatch(Watch):
    """Lines carry their own time; those of the window may come a moment after it."""

    def __init__(self, meter: Lines) -> None:
        try:
            self.stream = os.open(meter.path, os.O_RDONLY | os.O_NONBLOCK)
            self.cut = True  # what a port gives first may be the end of a line
            if os.path.isfile(meter.path):
                end = os.lseek(self.stream, 0, os.SEEK_END)
                self.cut = end > 0 and os.pread(self.stream, 1, end - 1) != b"\n"
        except OSError as error:
            raise MeterError("%s: %s" % (meter.name, error)) from None
        self.rest = b""
        self.offset_s = time.monotonic() - time.time()
        super().__init__(meter)

    def stop(self) -> MeanPower:
        end_s, patience_s = time.monotonic(), time.monotonic() + _PATIENCE_S
        while time.monotonic() < patience_s and self.error is None and (not self.series or self.series[-1][0] < end_s):
            time.sleep(0.02)
        self.over.set()
        self.thread.join()
        os.close(self.stream)
        if self.error is not None:
            raise MeterError("%s: %s" % (self.meter.name, self.error))
        return self._seen(end_s)

    def cancel(self) -> None:
        super().cancel()
        self.thread.join()
        os.close(self.stream)

    def _look(self) -> None:
        try:
            self.rest += os.read(self.stream, 65536)
        except BlockingIOError:  # nothing new yet
            return
        except OSError as error:
            self.error = error
            return
        *whole, self.rest = self.rest.split(b"\n")
        if whole and self.cut:
            whole, self.cut = whole[1:], False
        for line in whole:
            try:
                stamp, watts = (float(word) for word in line.split())
            except ValueError:
                self.error = MeterError("not `timestamp watts`: %r" % line[:60])
                return
            self.series.append((stamp + self.offset_s, watts))


def open_meter(kind: str, path: str = "", scale: float = 1.0, root: str = "/") -> Meter:
    """A meter by the name a person gives it. Raises MeterError with what is missing."""
    makers: Dict[str, Callable[[], Meter]] = {
        "rapl": lambda: _rapl(root),
        "hwmon": lambda: _hwmon(root, path),
        "pmic": _pmic,
        "battery": lambda: _battery(root, path or "battery", scale),
        "lines": lambda: Lines(path),
    }
    if kind not in makers:
        raise MeterError("no kind of meter `%s` (known: %s)" % (kind, ", ".join(makers)))
    return makers[kind]()


def found_meter(root: str = "/") -> Tuple[Optional[Meter], str]:
    """The first meter that answers here, or None and why none does. A battery is only read where it is asked for."""
    reasons: List[str] = []
    for kind in ("rapl", "hwmon", "pmic"):
        try:
            meter = open_meter(kind, root=root)
            meter.read()
            return meter, ""
        except (MeterError, OSError, ValueError) as error:
            reasons.append("%s: %s" % (kind, error))
    return None, "; ".join(reasons)


def _rapl(root: str) -> Meter:
    """The packages' counters, each once: some machines tell a package's by two ways.

    The subzones of a package are in its own; `psys` would count them twice.
    """
    folder = os.path.join(root, "sys/class/powercap")
    zones = [name for name in _names(folder) if re.match(r"^(intel-rapl|amd-rapl|intel-rapl-mmio):\d+$", name)]
    packages: Dict[str, str] = {}
    for zone in sorted(zones, key=lambda name: "mmio" in name):
        package = _text(os.path.join(folder, zone, "name"))
        if package.startswith("package"):
            packages.setdefault(package, os.path.join(folder, zone))
    chosen = list(packages.values())
    if not chosen:
        raise MeterError("no counter of a processor package")
    wraps = [_number(os.path.join(zone, "max_energy_range_uj")) * 1e-6 for zone in chosen]
    if len(set(wraps)) > 1 or not wraps[0]:
        raise MeterError("the packages' counters wrap at %s J: they can't be added" % wraps)
    last: Dict[str, float] = {}
    turns: Dict[str, float] = {}

    def read() -> float:
        total = 0.0
        for zone in chosen:
            value = _number(os.path.join(zone, "energy_uj")) * 1e-6
            if value < last.get(zone, 0.0):
                turns[zone] = turns.get(zone, 0.0) + wraps[0]
            last[zone] = value
            total += value + turns.get(zone, 0.0)
        return total

    return Meter("RAPL, %d package%s" % (len(chosen), "s" if len(chosen) > 1 else ""), read, 0.005, wraps[0])


def _hwmon(root: str, path: str) -> Meter:
    """A channel of an INA sensor: its power, or its volts times amperes.

    ``path`` names it where there are several, ``ina3221``, ``hwmon3`` or ``ina3221/VDD_IN``. Channels are never added:
    one may be what feeds the others. A board's known whole goes before its parts.
    """
    folder = os.path.join(root, "sys/class/hwmon")
    wanted, _, channel = path.partition("/")
    found: Dict[str, Callable[[], float]] = {}
    for name in _names(folder):
        place = os.path.join(folder, name)
        chip = _text(os.path.join(place, "name"))
        if wanted not in ("", name, chip) or not (wanted or re.match(_SENSORS, chip)):
            continue
        for label, read in _channels(place, chip).items():
            found["%s (%s)/%s" % (chip, name, label)] = read
    if channel:
        found = {name: read for name, read in found.items() if name.rpartition("/")[2] == channel}
    if not found:
        raise MeterError("no power sensor%s" % (" `%s`" % path if path else ""))
    wholes = [name for name in found if name.rpartition("/")[2] in _WHOLES]
    chosen = wholes if len(wholes) == 1 and not channel else list(found)
    if len(chosen) > 1:
        raise MeterError("several: name one as `path`, chip/channel (%s)" % ", ".join(sorted(chosen)))
    return Meter("hwmon %s" % chosen[0], found[chosen[0]], 0.01)


_SENSORS = r"^(ina\d|max\d|ltc\d|isl\d|pac\d|scmi|macsmc)"
_WHOLES = ("VDD_IN", "POM_5V_IN", "VIN", "5V0_IN")
"""Labels of what feeds a whole board (Jetson)."""


def _channels(place: str, chip: str) -> Dict[str, Callable[[], float]]:
    """Watts of each channel, by its label or number."""

    def watts_of(name: str) -> Callable[[], float]:
        return lambda: _number(os.path.join(place, name)) * 1e-6

    def product_of(number: str) -> Callable[[], float]:
        volts, amperes = (os.path.join(place, one % number) for one in ("in%s_input", "curr%s_input"))
        return lambda: _number(volts) * 1e-3 * _number(amperes) * 1e-3

    names = _names(place)
    found: Dict[str, Callable[[], float]] = {}
    for end in ("input", "average"):  # the same channel, of a moment or of a while
        for number in [name[5 : -len(end) - 1] for name in names if re.match(r"^power\d+_%s$" % end, name)]:
            found.setdefault(
                _text(os.path.join(place, "power%s_label" % number)) or number, watts_of("power%s_%s" % (number, end))
            )
    if found:
        return found
    for number in [name[4:-6] for name in names if re.match(r"^curr\d+_input$", name)]:
        sums = chip == "ina3221" and int(number) > 3  # of shunts, not of a rail
        if "in%s_input" % number in names and not sums:
            label = _text(os.path.join(place, "in%s_label" % number)) or _text(
                os.path.join(place, "curr%s_label" % number)
            )
            found[label or number] = product_of(number)
    return found


def _pmic() -> Meter:
    """The Raspberry Pi 5's own: what its regulators give, without the losses before them."""

    def read() -> float:
        said = subprocess.run(
            ["vcgencmd", "pmic_read_adc"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5, check=True
        ).stdout.decode("ascii", "replace")
        return _pmic_watts(said)

    try:
        read()
    except FileNotFoundError:
        raise MeterError("no vcgencmd") from None
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise MeterError("vcgencmd pmic_read_adc: %s" % error) from None
    return Meter("Raspberry Pi PMIC, sum of its rails", read, 0.1)


def _pmic_watts(said: str) -> float:
    """Amperes times volts of each rail that has both. Raises ValueError."""
    rows = re.findall(r"^\s*(\w+)_([AV]) (?:current|volt)\(\d+\)=([\d.]+)[AV]\s*$", said, re.MULTILINE)
    amperes = {rail: float(value) for rail, unit, value in rows if unit == "A"}
    volts = {rail: float(value) for rail, unit, value in rows if unit == "V"}
    both = amperes.keys() & volts.keys()
    if not both:
        raise ValueError("no rail with both current and voltage")
    return sum(amperes[rail] * volts[rail] for rail in both)


def _battery(root: str, name: str, scale: float) -> Meter:
    """A phone's battery. ``scale`` makes its ``current_now`` amperes: 1e-6 by the kernel's rule, 1e-3 on some."""
    place = os.path.join(root, "sys/class/power_supply", name)

    def read() -> float:
        status = _text(os.path.join(place, "status"))
        if status != "Discharging":
            raise MeterError("the battery is `%s`: unplug it" % (status or "not there"))
        return abs(
            _number(os.path.join(place, "current_now")) * scale * _number(os.path.join(place, "voltage_now")) * 1e-6
        )

    if not os.path.isdir(place):
        raise MeterError("no battery in %s" % place)
    return Meter("battery %s" % name, read, 0.05)


def _counted(series: Series, window_s: float) -> MeanPower:
    """Power between the first and the last time that the counter moved."""
    moved = [series[at] for at in range(1, len(series)) if series[at][1] != series[at - 1][1]]
    if len(moved) < 2:
        raise TooSlow("its counter does not move in %.1f s" % window_s)
    (begin_s, begin_j), (end_s, end_j) = moved[0], moved[-1]
    if len(moved) < _LEAST_CHANGES or end_s - begin_s < 0.5 * window_s:
        raise TooSlow("it is too slow: %d new values in %.1f s" % (len(moved), window_s))
    watts = (end_j - begin_j) / (end_s - begin_s)
    step_w = watts / (len(moved) - 1)
    return MeanPower(watts, end_s - begin_s, len(moved), step_w, step_w)


def _averaged(series: Series, begin_s: float, end_s: float) -> MeanPower:
    """The mean of power over its readings in the window, each as long as until the next."""
    inside = [(at, value) for at, value in series if begin_s <= at <= end_s]
    if len(inside) < _LEAST_CHANGES:
        raise TooSlow("it is too slow: %d readings in %.1f s" % (len(inside), end_s - begin_s))
    values = [value for _, value in inside]
    # not the least gap between levels: those of products, as of volts and amperes, come as near as you like
    steps = sorted(abs(one - other) for one, other in zip(values, values[1:]) if abs(one - other) > _ROUNDING_W)
    changes, step_w = len(steps), steps[len(steps) // 2] if steps else 0.0
    moved_w = max(values) - min(values) if steps else 0.0
    if 0 < changes < _LEAST_CHANGES and moved_w > _STEADY * abs(sum(values)) / len(values):
        raise TooSlow("it is too slow: %d new values in %.1f s" % (changes, end_s - begin_s))
    joules = sum(0.5 * (a + b) * (t - s) for (s, a), (t, b) in zip(inside, inside[1:]))
    seconds = inside[-1][0] - inside[0][0]
    if seconds <= 0.5 * (end_s - begin_s):
        raise TooSlow("its readings cover %.1f s of %.1f s" % (seconds, end_s - begin_s))
    unsure_w = moved_w if changes < _LEAST_CHANGES else step_w / changes**0.5
    return MeanPower(joules / seconds, seconds, len(inside), unsure_w, step_w)


def _names(folder: str) -> List[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:  # no such folder: nothing of that kind here
        return []


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            return stream.read(200).strip()
    except OSError:  # the caller says what is missing
        return ""


def _number(path: str) -> float:
    """A number out of a file. Raises OSError where it can't be read, ValueError on text."""
    with open(path, encoding="ascii", errors="replace") as stream:
        return float(stream.read(200))
