"""``edgekd profile``: this computer, looked at quickly; what is known is not measured again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekd.testing.sshd import LoopbackSshd, sshd_path
from tests.journeys.conftest import install_once

pytestmark = pytest.mark.journey


def quickly(edgekd, device: str, *more: str) -> tuple[dict, dict, str]:
    """The first answer, that in which nothing is left out any more, and what was said at first.

    A machine that is busy with other tests may need a minute more than one.
    """
    first, said = None, ""
    for _ in range(4):
        done = edgekd("profile", device, "--quick", "--format", "json", *more)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        first, said = first or report, said or done.stderr
        if not report["left_out"]:
            return first, report, said
    raise AssertionError(f"still without {report['left_out']}")


def test_a_quick_profile_is_measured_once(edgekd, tmp_path):
    edgekd.environment["XDG_DATA_HOME"] = str(tmp_path / "data")
    begun, first, said = quickly(edgekd, "this-computer")
    assert "4 sections, about" in said
    assert begun["reused"] == []
    assert [deployment["precision"] for deployment in first["deployments"]] == ["float32", "int8"]
    for deployment in first["deployments"]:
        assert deployment["refused"] == ""
        assert deployment["peak"]["value"] > 0
        assert 0 < deployment["overhead"]["value"] < deployment["width_sweep"][-1]["p5_us"]["value"]
    assert first["behaviour"]["threads"][0]["threads"] == 1
    assert (Path(first["folder"]) / "report.html").is_file()

    done = edgekd("profile", "this-computer", "--quick")
    assert done.returncode == 0, done.stderr
    assert "sections" not in done.stderr
    assert "known before: memory" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if first["folder"] not in line) <= 80

    done = edgekd("tables", "list")
    assert done.returncode == 0
    assert "litert/xnnpack int8 . 1 thread . 4 networks" in done.stdout


@pytest.mark.skipif(sshd_path() is None, reason="no sshd: apt-get install openssh-server")
def test_a_board_is_measured_once_in_each_state_and_for_each_number_of_threads(edgekd, tmp_path, board_environment):
    edgekd.environment["XDG_DATA_HOME"] = str(tmp_path / "data")
    with LoopbackSshd() as server:

        def described(more: str = "") -> None:
            connection = f"{{kind: ssh, host: {server.host}, config: {server.config}, folder: {tmp_path}/board{more}}}"
            text = f"schema: edgekd.device/1\ntitle: A board on loopback\nconnection: {connection}\n"
            edgekd.write("devices/board.yaml", text)

        def profile(*more: str) -> tuple[dict, dict]:
            options = ("--backend", "onnxruntime/cpu", "--precision", "float32", *more)
            begun, report, _ = quickly(edgekd, "board", *options)
            return begun, report

        described()
        install_once(edgekd, tmp_path / "board", board_environment)
        begun, first = profile()
        assert begun["reused"] == []
        assert [deployment["refused"] for deployment in first["deployments"]] == [""]
        again, _ = profile()
        assert len(again["reused"]) == 3
        assert [again["deployments"], again["memory"], again["behaviour"]] == [
            first["deployments"], first["memory"], first["behaviour"],
        ]  # fmt: skip
        begun, several = profile("--threads", "2")
        assert begun["reused"] == ["memory", "behaviour-onnxruntime-cpu"]
        assert [deployment["threads"] for deployment in several["deployments"]] == [2]
        described(", limits: {cores: 1}")
        begun, smaller = profile()
        assert begun["reused"] == []
        assert smaller["fingerprint"]["limits"]
        assert {deployment["overhead"]["kind"] for deployment in smaller["deployments"]} == {"emulated"}


def test_a_device_that_is_not_there(edgekd):
    done = edgekd("profile", "this-computr")
    assert done.returncode == 3
    assert "this-computer" in done.stderr


def test_a_backend_that_is_not_known(edgekd):
    done = edgekd("profile", "--backend", "litert/xnpack")
    assert done.returncode == 3
    assert "litert/xnnpack" in done.stderr
