"""A phone over a real adbd on loopback: the shared contract, a phone that dies, and one that freezes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgekd.devices._protocol import Device, MeasurePlan, Outcome
from edgekd.devices.adb import AdbDevice
from edgekd.devices.diagnostic import null_job
from edgekd.errors import DeviceUnreachable, MissingError
from edgekd.measure.doctor import examine
from edgekd.testing.adbd import LoopbackAdbd, missing
from edgekd.testing.contracts.device import DeviceContract

pytestmark = [pytest.mark.runtime, pytest.mark.skipif(missing() != "", reason=f"no adbd: {missing()}")]

PLAN = MeasurePlan(processes=3, rounds=3, round_ms=5.0, warmup_ms=5.0)


@pytest.fixture
def adbd(phone_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackAdbd]:
    with LoopbackAdbd(phone_root) as phone:
        for name, value in phone.environment.items():
            monkeypatch.setenv(name, value)
        yield phone


@pytest.fixture
def device(adbd: LoopbackAdbd) -> AdbDevice:
    name = f"phone-{time.monotonic_ns()}"
    return AdbDevice(name=name, address=adbd.address, folder=f"/data/local/tmp/{name} it's", patience_s=30.0)


class TestAdbDevice(DeviceContract):
    @pytest.fixture
    def make_device(self, device: AdbDevice) -> Callable[[], Device]:
        return lambda: device


def test_a_phone_that_dies_and_comes_back(device: AdbDevice, adbd: LoopbackAdbd, tmp_path: Path) -> None:
    plan = PLAN.but(processes=8, rounds=10, round_ms=20.0)
    died: list[int] = []

    def heard(_what: str, done: int, _total: int) -> None:
        if done == 3 and not died:
            died.append(done)
            adbd.kill()
            threading.Timer(1.0, adbd.start).start()

    with device.open() as session:
        (result,) = session.measure([null_job(tmp_path, "spin=200")], plan, heard)
    assert died
    assert result.outcome is Outcome.OK
    assert len(result.processes) == 8


def test_a_phone_that_freezes_and_goes_on(device: AdbDevice, adbd: LoopbackAdbd, tmp_path: Path) -> None:
    plan = PLAN.but(processes=8, rounds=10, round_ms=20.0)
    frozen: list[int] = []

    def heard(_what: str, done: int, _total: int) -> None:
        if done == 3 and not frozen:
            frozen.append(done)
            adbd.freeze()
            threading.Timer(6.0, adbd.thaw).start()

    with device.open() as session:
        session.describe()
        session._session._silence_s = 4.0  # type: ignore[union-attr]
        (result,) = session.measure([null_job(tmp_path, "spin=200")], plan, heard)
    assert frozen
    assert result.outcome is Outcome.OK


def test_a_phone_that_stays_dead(device: AdbDevice, adbd: LoopbackAdbd, tmp_path: Path) -> None:
    session = device.but(patience_s=2.0).open()
    session.describe()
    adbd.kill()
    with pytest.raises(DeviceUnreachable, match="did not come back within 2 s"):
        session.measure([null_job(tmp_path)], PLAN)
    session.close()
    adbd.start()
    device.open().close()  # the lock is free again


def test_nobody_answers(device: AdbDevice) -> None:
    with pytest.raises(DeviceUnreachable, match="can't be reached"):
        device.but(address="127.0.0.1:1").open()
    with pytest.raises(DeviceUnreachable, match="it is not connected"):
        device.but(address=None, serial="0123456789").open()


def test_no_python(device: AdbDevice) -> None:
    with pytest.raises(MissingError, match="no Python was found"):
        device.but(python="/nowhere/python3").open()


def test_either_serial_or_address() -> None:
    with pytest.raises(ValueError, match="expected either"):
        AdbDevice(name="phone")
    for address in ("-H:1", "a b:1", "host", "host:port", "$(touch x):1"):
        with pytest.raises(ValueError, match="address"):
            AdbDevice(name="phone", address=address)


DUMPSYS = """#!/bin/sh
case "$1" in
power) echo '  mWakefulness=Dozing' ;;
battery) printf '  USB powered: true\\n  level: 12\\n  scale: 100\\n  temperature: 402\\n' ;;
thermalservice) echo 'Thermal Status: 1' ;;
esac
"""


def test_what_the_phone_says_of_itself(device: AdbDevice, phone_root: Path, tmp_path: Path) -> None:
    with device.open() as session:
        (before,) = session.measure([null_job(tmp_path)], PLAN)
    dumpsys = phone_root / "system/bin/dumpsys"
    dumpsys.write_text(DUMPSYS)
    dumpsys.chmod(0o755)
    try:
        with device.open() as session:
            (result,) = session.measure([null_job(tmp_path)], PLAN)
        (check,) = [check for check in examine(device, lambda: []).checks if check.name == "phone"]
    finally:
        dumpsys.unlink()
    assert before.state == ""
    assert result.state == "screen off, charging, battery 12 %, 40.2 C, throttling light"
    assert (check.state, check.found) == ("warn", result.state)
    for words in ("set a long screen timeout", "unplug it", "charge it first", "let it cool"):
        assert words in check.remedy
