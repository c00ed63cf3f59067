"""Temperature, clock, swap and throttling, read from files that play other machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekd.agent.conditions import conditions
from edgekd.devices._protocol import Conditions

ZONES = "sys/class/thermal/thermal_zone"
FREQUENCY = "sys/devices/system/cpu/cpu3/cpufreq/scaling_cur_freq"
CPUINFO = "processor\t: 2\ncpu MHz\t\t: 800.0\n\nprocessor\t: 3\ncpu MHz\t\t: 2400.125\n\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine that reports nothing but the core this process ran on: 3."""
    write(tmp_path, "proc/self/stat", "77 (a) name) R " + " ".join(["0"] * 35) + " 3 0 0")
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


def zone(root: Path, number: int, kind: str, temp: str) -> None:
    write(root, f"{ZONES}{number}/type", kind + "\n")
    write(root, f"{ZONES}{number}/temp", temp + "\n")


def test_what_a_machine_does_not_report_is_absent(root: Path, tmp_path: Path) -> None:
    assert conditions(str(root)) is None
    assert conditions(str(tmp_path / "nothing")) is None
    write(root, FREQUENCY, "1500000\n")
    assert conditions(str(root)) == {"clock_mhz": 1500.0}


def test_the_hottest_zone_of_the_processor(root: Path) -> None:
    zone(root, 0, "cpu-thermal", "48500")
    zone(root, 1, "x86_pkg_temp", "61250")
    zone(root, 2, "iwlwifi_1", "79000")
    (root / f"{ZONES}3").mkdir()
    found = Conditions.model_validate(conditions(str(root)))
    assert found.temperature_c == 61.25
    assert found.clock_mhz is None


@pytest.mark.parametrize("temp", ["", "-274000", "200000", "nan", "hot"])
def test_a_sensor_that_makes_no_sense_reports_nothing(temp: str, root: Path) -> None:
    zone(root, 0, "cpu-thermal", temp)
    assert conditions(str(root)) is None


def test_a_radio_alone_is_not_the_processor(root: Path) -> None:
    zone(root, 0, "iwlwifi_1", "50000")
    assert conditions(str(root)) is None


def test_the_clock_of_its_own_core(root: Path) -> None:
    write(root, "proc/cpuinfo", CPUINFO)
    assert conditions(str(root)) == {"clock_mhz": 2400.125}
    write(root, FREQUENCY.replace("cpu3", "cpu2"), "900000\n")
    assert conditions(str(root)) == {"clock_mhz": 2400.125}
    write(root, FREQUENCY, "1800000\n")
    assert conditions(str(root)) == {"clock_mhz": 1800.0}


def test_pages_in_and_out(root: Path) -> None:
    write(root, "proc/vmstat", "pgpgin 9\npswpin 300\npswpout 41\npswpin_zero 7\n")
    assert conditions(str(root)) == {"swapped_pages": 341}


def test_throttlings_of_all_cores_that_count_them(root: Path) -> None:
    for core, count in (("cpu0", 2), ("cpu11", 5), ("cpufreq", 100)):
        write(root, f"sys/devices/system/cpu/{core}/thermal_throttle/core_throttle_count", f"{count}\n")
    (root / "sys/devices/system/cpu/cpu1").mkdir()
    assert conditions(str(root)) == {"throttle_count": 7}


@pytest.mark.parametrize(("text", "flags"), [("50005\n", 0x50005), ("0x50000", 0x50000), ("0\n", 0), ("none", None)])
def test_the_flags_of_a_raspberry_pi(text: str, flags: int | None, root: Path) -> None:
    write(root, "sys/devices/platform/soc/soc:firmware/get_throttled", text)
    assert (conditions(str(root)) or {}).get("throttle_flags") == flags
