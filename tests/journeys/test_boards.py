"""A search on a board over a real ssh server and on a phone over a real adbd: cut, killed, frozen, nothing lost."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from edgekd.testing.adbd import LoopbackAdbd, missing
from edgekd.testing.sshd import LoopbackSshd, sshd_path
from tests.journeys.conftest import install_once

pytestmark = pytest.mark.journey
on_ssh = pytest.mark.skipif(sshd_path() is None, reason="no sshd: apt-get install openssh-server")
on_adb = pytest.mark.skipif(missing() != "", reason=f"no adbd: {missing()}")

SEARCH = ("search", "project.yaml", "--run", "run")


@pytest.fixture
def sshd() -> Iterator[LoopbackSshd]:
    with LoopbackSshd() as server:
        yield server


def described(edgekd, server: LoopbackSshd, folder: Path, patience_s: float = 60.0) -> None:
    """The project's target on a board, whose Python is the one installed there by edgekd."""
    edgekd.write(
        "devices/board.yaml",
        f"""\
schema: edgekd.device/1
title: A board on loopback
connection: {{kind: ssh, host: {server.host}, config: {server.config}, folder: {folder}, patience_s: {patience_s}}}
""",
    )
    edgekd.change("target.yaml", "device: this-computer", "device: board")


def watched(edgekd, act: Mapping[str, Callable[[], object]], *arguments: str) -> tuple[int, str]:
    """A command to its end; at the first line of stderr that begins so, something is done to it."""
    process = subprocess.Popen(
        [*edgekd.begin, *arguments],
        cwd=edgekd.folder,
        env=edgekd.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    waiting, said = dict(act), list[str]()
    late = threading.Timer(800, process.kill)
    late.start()
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        for beginning in [each for each in waiting if line.startswith(each)]:
            waiting.pop(beginning)()
    late.cancel()
    text = "".join(said)
    assert "Traceback" not in text, text
    assert not waiting, text
    return process.wait(), text


def kept(run: Path) -> dict[Path, tuple[str, int]]:
    """What was finished: digest and time of writing."""
    found = [*run.glob("*.json"), *run.glob("reference-archs/*.json"), *run.glob("trials/*.json")]
    return {path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in found}


def certificate(run: Path) -> dict:
    return json.loads((run / "bundle" / "certificate.json").read_text())


@on_ssh
def test_a_search_whose_connection_is_cut_twice(edgekd, sshd, tmp_path, board_environment):
    described(edgekd, sshd, tmp_path / "board")
    edgekd.change("target.yaml", "[onnxruntime/cpu]", "[onnxruntime/cpu, litert/xnnpack]")
    install_once(edgekd, tmp_path / "board", board_environment)
    assert len(list((tmp_path / "board/envs").glob("*/bin/python"))) == 1
    probed = json.loads(edgekd("devices", "probe", "board", "--format", "json").stdout)
    assert set(probed["fingerprint"]["runtimes"]) == {"onnxruntime", "litert"}

    cuts: list[int] = []
    cut = {"searching  0": lambda: cuts.append(sshd.cut()), "refining": lambda: cuts.append(sshd.cut())}
    code, said = watched(edgekd, cut, *SEARCH)
    assert code == 0, said
    assert len(cuts) == 2
    assert min(cuts) >= 1, said
    run = edgekd.folder / "run"
    assert len(list(run.glob("trials/*.json"))) == 2
    shown = certificate(run)
    latency = next(item["figure"] for item in shown["verdict"]["limits"] if item["figure"]["metric"] == "latency.p95")
    assert (latency["kind"], latency["subject"]) == ("measured", probed["subject"])
    verified = edgekd("verify", "run/bundle", "--device", "board")
    assert verified.returncode in (0, 6), verified.stdout  # 6: too noisy to repeat here
    assert edgekd("search", "--replay", "run").returncode == 0


@on_ssh
def test_a_board_that_goes_away_and_comes_back_another_day(edgekd, sshd, tmp_path, board_environment):
    described(edgekd, sshd, tmp_path / "board", patience_s=1.0)
    install_once(edgekd, tmp_path / "board", board_environment)
    code, said = watched(edgekd, {"searching  1": sshd.stop}, *SEARCH)
    assert code == 4, said
    assert "did not come back within 1 s" in said
    assert "the same command" in said
    run = edgekd.folder / "run"
    before = kept(run)
    assert run / "trials/0000.json" in before

    sshd.start()
    done = edgekd(*SEARCH)
    assert done.returncode == 0, done.stderr
    assert {path: kept(run).get(path) for path in before} == before


@on_ssh
def test_an_old_runtime(edgekd, sshd, tmp_path):
    """tflite_runtime was built against numpy 1."""
    described(edgekd, sshd, tmp_path / "board")
    edgekd.change("target.yaml", "[onnxruntime/cpu]", "[litert/xnnpack]")
    installed = edgekd("devices", "install", "board", "--runtime", "tflite-runtime", "--format", "json")
    assert installed.returncode == 0, installed.stderr
    assert json.loads(installed.stdout)["runtimes"]["litert"].startswith("tflite_runtime 2.")
    code, said = watched(edgekd, {"searching  0": sshd.cut, "searching  1": sshd.cut}, *SEARCH)
    assert code == 0, said
    assert {limit["answer"] for limit in certificate(edgekd.folder / "run")["verdict"]["limits"]} == {"holds"}


@on_adb
def test_a_phone_that_dies_once_and_freezes_once(edgekd, phone_root):
    with LoopbackAdbd(phone_root) as phone:
        edgekd.environment.update(phone.environment)
        edgekd.write(
            "devices/phone.yaml",
            f"""\
schema: edgekd.device/1
title: A phone on loopback
connection: {{kind: adb, address: "{phone.address}", folder: /data/local/tmp/{edgekd.folder.name}}}
""",
        )
        edgekd.change("target.yaml", "device: this-computer", "device: phone")

        def die() -> None:
            phone.kill()
            threading.Timer(2.0, phone.start).start()

        def freeze() -> None:
            phone.freeze()
            threading.Timer(40.0, phone.thaw).start()

        code, said = watched(edgekd, {"searching  0": die, "refining": freeze}, *SEARCH)
    assert code == 0, said
    assert len(list((edgekd.folder / "run").glob("trials/*.json"))) == 2
