"""Power read from trees that play a known one, and every way such a tree can be wrong."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgekd.agent import meters
from edgekd.agent.meters import MeanPower, MeterError, TooSlow, found_meter, open_meter

WINDOW_S = 0.6


def put(path: Path, text: object) -> None:
    """Whole or not at all: a reader never sees half a number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(f"{text}\n")
    part.replace(path)


class Moments(threading.local):
    """The time of a reading is that of its step, however long another program holds this one up in between."""

    held: float | None = None

    def hold(self) -> float:
        self.held = time.monotonic() if self.held is None else self.held
        return self.held

    def __call__(self) -> float:
        now, self.held = time.monotonic() if self.held is None else self.held, None
        return now


@contextmanager
def playing(step: Callable[[float], None]) -> Iterator[None]:
    """Calls ``step`` with the seconds since the beginning before files are read."""
    begin, read, moments = time.monotonic(), meters._number, Moments()

    def number(path: str) -> float:
        step(moments.hold() - begin)
        return read(path)

    step(0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meters, "_number", number)
        patch.setattr(meters, "time", SimpleNamespace(monotonic=moments))
        yield


@contextmanager
def beside(step: Callable[[float], None], every_s: float = 0.002) -> Iterator[None]:
    """Calls ``step`` with the seconds since the beginning, again and again, as a program of its own would."""
    over, begin = threading.Event(), time.monotonic()

    def play() -> None:
        while not over.wait(every_s):
            step(time.monotonic() - begin)

    step(0.0)
    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def watched(meter: meters.Meter, seconds: float = WINDOW_S) -> MeanPower:
    watch = meter.watch()
    time.sleep(seconds)
    return watch.stop()


def rapl(root: Path, zone: str = "intel-rapl:0", name: str = "package-0", wraps_uj: int = 262_143_328_850) -> Path:
    place = root / "sys/class/powercap" / zone
    put(place / "name", name)
    put(place / "max_energy_range_uj", wraps_uj)
    put(place / "energy_uj", 0)
    return place / "energy_uj"


@pytest.mark.slow
def test_rapl_of_two_packages(tmp_path: Path) -> None:
    first, second = rapl(tmp_path), rapl(tmp_path, "intel-rapl:1", "package-1")
    rapl(tmp_path, "intel-rapl:0:0", "core")
    rapl(tmp_path, "intel-rapl:2", "psys")

    def step(seconds: float) -> None:
        put(first, int(7.0e6 * seconds))
        put(second, int(3.0e6 * seconds))

    with playing(step):
        seen = watched(open_meter("rapl", root=str(tmp_path)))
    assert seen.watts == pytest.approx(10.0, rel=0.02)
    assert seen.readings > 20


@pytest.mark.slow
def test_a_counter_that_wraps(tmp_path: Path) -> None:
    counter = rapl(tmp_path, wraps_uj=1_000_000)
    with playing(lambda seconds: put(counter, int(8.0e6 * seconds) % 1_000_000)):
        seen = watched(open_meter("rapl", root=str(tmp_path)))
    assert seen.watts == pytest.approx(8.0, rel=0.02)


@pytest.mark.slow
def test_a_counter_slower_than_the_window(tmp_path: Path) -> None:
    counter = rapl(tmp_path)
    with playing(lambda seconds: put(counter, int(seconds / 0.25) * 1_000_000)):
        meter = open_meter("rapl", root=str(tmp_path))
        with pytest.raises(TooSlow, match=r"too slow: [1-3] new values"):
            watched(meter)
        seen = watched(meter, 3.0)
    assert seen.watts == pytest.approx(4.0, rel=0.05)


def test_a_counter_that_stands(tmp_path: Path) -> None:
    rapl(tmp_path)
    with pytest.raises(MeterError, match="does not move"):
        watched(open_meter("rapl", root=str(tmp_path)), 0.05)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody who may not read")
def test_a_counter_that_may_not_be_read(tmp_path: Path) -> None:
    rapl(tmp_path).chmod(0o400)
    program = (
        "import encodings.ascii, os, sys; sys.path.insert(0, sys.argv[1]); from edgekd.agent.meters import found_meter;"
        "os.setuid(65534); print(found_meter(sys.argv[2])[1])"
    )
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    here = str(Path(meters.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program, here, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "Permission denied" in done.stdout, done.stderr
    assert "energy_uj" in done.stdout


def ina(root: Path, number: int = 0, chip: str = "ina226", **files: object) -> Path:
    place = root / f"sys/class/hwmon/hwmon{number}"
    for name, value in {"name": chip, **files}.items():
        put(place / name, value)
    return place


@pytest.mark.slow
def test_a_sensor_of_power(tmp_path: Path) -> None:
    ina(tmp_path, 0, "coretemp", temp1_input=40000)
    place = ina(tmp_path, 3, power1_input=0)
    with playing(lambda seconds: put(place / "power1_input", int(4.2e6 + 1e5 * (int(500 * seconds) % 3 - 1)))):
        seen = watched(open_meter("hwmon", root=str(tmp_path)))
    assert seen.watts == pytest.approx(4.2, rel=0.02)


def three_channels(root: Path, *labels: str) -> None:
    """As a Jetson's: volts and amperes of three rails, the sums of shunts behind them."""
    volts = {f"in{n}_input": 5000 for n in (1, 2, 3)} | {"in4_input": 40}
    amperes = {"curr1_input": 1000, "curr2_input": 400, "curr3_input": 200, "curr4_input": 1600}
    ina(root, 0, "ina3221", **volts, **amperes, **{f"in{n}_label": label for n, label in enumerate(labels, 1)})


@pytest.mark.slow
def test_channels_are_never_added(tmp_path: Path) -> None:
    three_channels(tmp_path)
    with pytest.raises(MeterError, match=r"several: name one .* \(ina3221 \(hwmon0\)/1, .*/2, .*/3\)"):
        open_meter("hwmon", root=str(tmp_path))
    assert watched(open_meter("hwmon", "ina3221/2", root=str(tmp_path))).watts == pytest.approx(2.0)


@pytest.mark.slow
def test_what_feeds_the_others_is_the_whole(tmp_path: Path) -> None:
    three_channels(tmp_path, "VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")
    meter = open_meter("hwmon", root=str(tmp_path))
    assert meter.name == "hwmon ina3221 (hwmon0)/VDD_IN"
    assert watched(meter).watts == pytest.approx(5.0)
    assert watched(open_meter("hwmon", "ina3221/VDD_SOC", root=str(tmp_path))).watts == pytest.approx(1.0)


@pytest.mark.slow
def test_a_moment_and_a_while_of_one_channel_count_once(tmp_path: Path) -> None:
    ina(tmp_path, 0, power1_input=3_000_000, power1_average=3_000_000)
    assert watched(open_meter("hwmon", root=str(tmp_path))).watts == pytest.approx(3.0)


@pytest.mark.slow
def test_a_package_reported_by_two_ways_counts_once(tmp_path: Path) -> None:
    first, second = rapl(tmp_path), rapl(tmp_path, "intel-rapl-mmio:0", "package-0")

    def step(seconds: float) -> None:
        put(first, int(7.0e6 * seconds))
        put(second, int(7.0e6 * seconds))

    with playing(step):
        meter = open_meter("rapl", root=str(tmp_path))
        assert watched(meter).watts == pytest.approx(7.0, rel=0.02)
    assert meter.name == "RAPL, 1 package"


@pytest.mark.slow
def test_one_of_several_sensors(tmp_path: Path) -> None:
    ina(tmp_path, 0, power1_input=1_000_000)
    ina(tmp_path, 1, power1_input=2_000_000)
    with pytest.raises(MeterError, match=r"several: name one .* \(ina226 \(hwmon0\)/1, ina226 \(hwmon1\)/1\)"):
        open_meter("hwmon", root=str(tmp_path))
    assert watched(open_meter("hwmon", "hwmon1", root=str(tmp_path))).watts == pytest.approx(2.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("N/A", "could not convert"),
        (5_000_000_000_000, "can't be: is its unit another"),
        (0, "can't be"),
        (-3, "can't be"),
    ],
)
def test_readings_that_cannot_be(tmp_path: Path, value: object, said: str) -> None:
    ina(tmp_path, power1_input=value)
    with pytest.raises(MeterError, match=said):
        watched(open_meter("hwmon", root=str(tmp_path)))


def test_a_sensor_that_goes_away(tmp_path: Path) -> None:
    place = ina(tmp_path, power1_input=1_000_000)
    watch = open_meter("hwmon", root=str(tmp_path)).watch()
    (place / "power1_input").unlink()
    time.sleep(0.1)
    with pytest.raises(MeterError, match="No such file"):
        watch.stop()


@pytest.mark.slow
def test_a_slow_sensor_of_a_changing_power(tmp_path: Path) -> None:
    place = ina(tmp_path, power1_input=0)
    with (
        playing(lambda seconds: put(place / "power1_input", 1_000_000 * (1 + int(seconds / 0.2) % 2))),
        pytest.raises(TooSlow, match="new values"),
    ):
        watched(open_meter("hwmon", root=str(tmp_path)))


def battery(root: Path, status: str = "Discharging", current: int = -450_000) -> None:
    place = root / "sys/class/power_supply/battery"
    for name, value in (("status", status), ("current_now", current), ("voltage_now", 4_000_000)):
        put(place / name, value)


@pytest.mark.slow
def test_a_battery_of_either_sign_and_unit(tmp_path: Path) -> None:
    battery(tmp_path)
    assert watched(open_meter("battery", scale=1e-6, root=str(tmp_path))).watts == pytest.approx(1.8)
    battery(tmp_path, current=450)
    assert watched(open_meter("battery", scale=1e-3, root=str(tmp_path))).watts == pytest.approx(1.8)


def test_a_battery_that_charges(tmp_path: Path) -> None:
    battery(tmp_path, "Charging")
    with pytest.raises(MeterError, match="`Charging`: unplug it"):
        open_meter("battery", scale=1e-6, root=str(tmp_path)).watch()


@pytest.mark.slow
def test_an_external_meter(tmp_path: Path) -> None:
    log = tmp_path / "meter.log"
    log.write_text("1.0 99.0\n")  # of long ago

    def step(seconds: float) -> None:
        with log.open("a") as stream:
            stream.write(f"{time.time():.6f} {6.0 + 0.01 * (int(seconds * 500) % 2)}\n")

    with beside(step):
        seen = watched(open_meter("lines", str(log)))
    assert seen.watts == pytest.approx(6.005, rel=0.01)


@pytest.mark.slow
def test_an_external_meters_file_that_ends_inside_a_line(tmp_path: Path) -> None:
    log = tmp_path / "meter.log"
    log.write_text("1.0 99.0\n2.0 9")  # of long ago too
    watch = open_meter("lines", str(log)).watch()

    def write(line: str) -> None:
        with log.open("a") as stream:
            stream.write(line)

    write("9.0\n")
    with beside(lambda _: write(f"{time.time():.6f} 6.0\n")):
        time.sleep(WINDOW_S)
        assert watch.stop().watts == pytest.approx(6.0)


def test_an_external_meter_that_says_something_else(tmp_path: Path) -> None:
    log = tmp_path / "meter.log"
    log.write_text("")
    watch = open_meter("lines", str(log)).watch()
    log.write_text("12:00:01, 3 W\n")
    with pytest.raises(MeterError, match="not `timestamp watts`"):
        watch.stop()


@pytest.mark.slow
@pytest.mark.parametrize("watts", ["nan", "5048.0", "-3.0"])
def test_an_external_meter_of_another_unit(tmp_path: Path, watts: str) -> None:
    log = tmp_path / "meter.log"
    log.write_text("")

    def step(seconds: float) -> None:
        with log.open("a") as stream:
            stream.write(f"{time.time():.6f} {watts}\n")

    with beside(step), pytest.raises(MeterError, match="can't be"):
        watched(open_meter("lines", str(log)), 0.3)


def test_an_external_meter_that_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "_PATIENCE_S", 0.1)
    log = tmp_path / "meter.log"
    log.write_text("")
    with pytest.raises(TooSlow, match="0 readings"):
        watched(open_meter("lines", str(log)), 0.05)


def test_a_step_of_volts_times_amperes_is_one_of_either_and_no_coincidence_of_products() -> None:
    drawn = random.Random(0)
    series, volts, amperes = [], 5.000, 1.000
    for number in range(200):
        volts = drawn.choice((5.000, 5.004)) if drawn.random() < 0.3 else volts  # a step is 4 mW ...
        amperes = drawn.choice((0.999, 1.000, 1.001)) if drawn.random() < 0.3 else amperes  # ... and one of these 5 mW
        series.append((0.01 * number, volts * amperes))
    levels = sorted({round(watts, 9) for _, watts in series})
    assert min(high - low for low, high in itertools.pairwise(levels)) < 0.0011
    seen = meters._averaged(series, 0.0, 2.0)
    assert 0.0039 < seen.step_w < 0.0101
    assert seen.unsure_w > 0.0039 / 200**0.5


def test_the_rails_of_a_raspberry_pi() -> None:
    said = """\
 3V7_WL_SW_A current(0)=0.08637188A
   VDD_CORE_A current(7)=1.50000000A
 3V7_WL_SW_V volt(8)=3.69000000V
   VDD_CORE_V volt(15)=0.80000000V
      EXT5V_V volt(24)=5.13000000V
"""
    assert meters._pmic_watts(said) == pytest.approx(0.08637188 * 3.69 + 1.2)
    with pytest.raises(ValueError, match="no rail"):
        meters._pmic_watts('error=1 error_msg="Command not registered"')


def test_what_is_not_there_is_reported(tmp_path: Path) -> None:
    meter, why = found_meter(str(tmp_path))
    assert meter is None
    assert "rapl: no counter" in why
    assert "hwmon: no power sensor" in why
    assert "pmic: no vcgencmd" in why
    with pytest.raises(MeterError, match="no kind of meter `sun`"):
        open_meter("sun")
    with pytest.raises(MeterError, match="no battery"):
        open_meter("battery", root=str(tmp_path))
