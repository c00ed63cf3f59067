"""``edgekd profile``: this computer, looked at quickly; what is known is not measured again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekd.testing.sshd import LoopbackSshd, sshd_path

pytestmark = pytest.mark.journey


def test_a_quick_profile_is_measured_once(edgekd, tmp_path):
    edgekd.environment["XDG_DATA_HOME"] = str(tmp_path / "data")
    done = edgekd("profile", "this-computer", "--quick", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert "4 sections, about" in done.stderr
    first = json.loads(done.stdout)
    assert first["reused"] == []
    assert [arm["precision"] for arm in first["arms"]] == ["float32", "int8"]
    assert first["left_out"] == []
    for arm in first["arms"]:
        assert arm["refused"] == ""
        assert arm["peak"]["value"] > 0
        assert 0 < arm["overhead"]["value"] < arm["stairs"][-1]["low_us"]["value"]
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
def test_a_board_is_measured_once_in_each_state_and_for_each_number_of_threads(edgekd, tmp_path):
    edgekd.environment["XDG_DATA_HOME"] = str(tmp_path / "data")
    with LoopbackSshd() as server:

        def described(more: str = "") -> None:
            connection = f"{{kind: ssh, host: {server.host}, config: {server.config}, folder: {tmp_path}/board{more}}}"
            text = f"schema: edgekd.device/1\ntitle: A board on loopback\nconnection: {connection}\n"
            edgekd.write("devices/board.yaml", text)

        def profile(*more: str) -> dict:
            done = edgekd("profile", "board", "--quick", "--backend", "onnxruntime/cpu", "--format", "json", *more)
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        described()
        installed = edgekd("devices", "install", "board", "--runtime", "onnxruntime")
        assert installed.returncode == 0, installed.stderr
        first = profile()
        sections = [*first["reused"], *first["left_out"]]
        assert sections == []
        assert [arm["refused"] for arm in first["arms"]] == ["", ""]
        again = profile()
        assert len(again["reused"]) == 4
        assert [again["arms"], again["memory"], again["behaviour"]] == [
            first["arms"], first["memory"], first["behaviour"],
        ]  # fmt: skip
        several = profile("--threads", "2", "--precision", "float32")
        assert several["reused"] == ["memory", "behaviour-onnxruntime-cpu"]
        assert [arm["threads"] for arm in several["arms"]] == [2]
        described(", limits: {cores: 1}")
        smaller = profile("--precision", "float32")
        assert smaller["reused"] == []
        assert smaller["fingerprint"]["limits"]
        assert {arm["overhead"]["kind"] for arm in smaller["arms"]} == {"emulated"}


def test_a_device_that_is_not_there(edgekd):
    done = edgekd("profile", "this-computr")
    assert done.returncode == 3
    assert "this-computer" in done.stderr


def test_a_backend_that_is_not_known(edgekd):
    done = edgekd("profile", "--backend", "litert/xnpack")
    assert done.returncode == 3
    assert "litert/xnnpack" in done.stderr
