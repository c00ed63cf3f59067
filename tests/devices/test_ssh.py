"""A board over a real ssh server on loopback: the contract, cut connections, hosts that are not what they were."""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import Device, Job, MeasurePlan, Outcome
from edgekd.devices.diagnostic import null_job
from edgekd.devices.session import AgentSession
from edgekd.devices.ssh import SshDevice
from edgekd.errors import ConnectionLost, DeviceBusy, DeviceUnreachable, MissingError
from edgekd.testing.contracts.device import DeviceContract
from edgekd.testing.sshd import LoopbackSshd, sshd_path

pytestmark = [
    pytest.mark.runtime,
    pytest.mark.skipif(sshd_path() is None, reason="no sshd: apt-get install openssh-server"),
]

PLAN = MeasurePlan(processes=3, rounds=3, round_ms=5.0, warmup_ms=5.0)
HOME = Path(pwd.getpwuid(os.getuid()).pw_dir)  # as the server knows it, whatever HOME is here


@pytest.fixture(scope="module")
def sshd() -> Iterator[LoopbackSshd]:
    with LoopbackSshd() as server:
        yield server


@pytest.fixture
def device(sshd: LoopbackSshd, tmp_path: Path) -> SshDevice:
    sshd.know(sshd.folder / "host.pub")
    return SshDevice(
        name=f"board-{time.monotonic_ns()}",
        host=sshd.host,
        config=sshd.config,
        python=sys.executable,
        folder=f"{tmp_path}/on board's $(touch {tmp_path}/executed)",
        patience_s=20.0,
    )


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """A program that passes for a Python until the agent is started with it. It ends when its stdin does."""
    python = tmp_path / "python"

    def write(body: str) -> str:
        python.write_text(f'#!/bin/sh\nif [ "$1" = -c ]; then exec {sys.executable} "$@"; fi\n{body}\n')
        python.chmod(0o755)
        return str(python)

    yield write
    end = time.monotonic() + 60
    while (left := running(python)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left


def running(program: Path) -> list[list[str]]:
    """Command lines in which it stands."""
    found = [each.info["cmdline"] or [] for each in psutil.process_iter(["cmdline"])]
    return [line for line in found if any(str(program) in word for word in line)]


class TestSshDevice(DeviceContract):
    @pytest.fixture
    def make_device(self, device: SshDevice) -> Callable[[], Device]:
        return lambda: device


def test_no_name_is_executed(device: SshDevice, tmp_path: Path) -> None:
    folder = tmp_path / "a'b `touch executed` ;touch executed;"
    folder.mkdir()
    with device.open() as session:
        (result,) = session.measure([null_job(folder)], PLAN)
    assert result.outcome is Outcome.OK
    assert not list(tmp_path.rglob("executed"))
    assert not Path("executed").exists()


def test_weights_beside_a_model_come_along(device: SshDevice, tmp_path: Path) -> None:
    """Under the name that the model calls them by, whatever a shell would read into it."""
    name = "deep/w $(touch executed) 'a' *.bin"
    (tmp_path / "deep").mkdir()
    x, y = (helper.make_tensor_value_info(end, TensorProto.FLOAT, [1, 40]) for end in "xy")
    weights = numpy_helper.from_array(np.arange(40, dtype=np.float32), "w")
    model = helper.make_model(
        helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "net", [x], [y], [weights]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location=name, size_threshold=0)
    job = Job(artefact=Artefact.of(tmp_path / "net.onnx"), backend=Backend.model_validate("onnxruntime/cpu"))
    assert len(job.artefact.files) == 2
    np.save(tmp_path / "x.npy", np.zeros((2, 40), np.float32))
    with device.open() as session:
        answer = session.run(job, [tmp_path / "x.npy"])
        assert answer.outcome is Outcome.OK, answer.detail
        np.testing.assert_array_equal(np.load(answer.outputs[0])[1], np.arange(40))
        board = Path(session._connected()._link.place.folder)  # type: ignore[attr-defined]
        (there,) = board.rglob("w *.bin")
    there.write_bytes(bytes(160))  # damaged there, with its size
    with device.open() as session:
        answer = session.run(job, [tmp_path / "x.npy"])
        np.testing.assert_array_equal(np.load(answer.outputs[0])[1], np.arange(40))
    assert not list(tmp_path.rglob("executed"))
    assert not Path("executed").exists()


def test_files_stay_on_the_board_and_sessions_do_not(device: SshDevice, tmp_path: Path) -> None:
    job = null_job(tmp_path)
    np.save(tmp_path / "x.npy", np.zeros((3, 1), np.float32))
    with device.open() as session:
        answer = session.run(job, [tmp_path / "x.npy"])
        assert answer.outcome is Outcome.OK
        assert np.load(answer.outputs[0]).shape == (3, 1)
        board = Path(session._connected()._link.place.folder)  # type: ignore[attr-defined]
        first = {path: path.stat().st_ino for path in board.rglob("blobs/*/*")}
        assert len(first) == 2
    assert not list(board.glob("sessions/*"))
    with device.open() as session:
        session.measure([job], PLAN)
    assert {path: path.stat().st_ino for path in board.rglob("blobs/*/*")} == first
    assert len(list(board.glob("agent/*"))) == 1


def test_a_cut_connection_is_taken_up_again(device: SshDevice, sshd: LoopbackSshd, tmp_path: Path) -> None:
    plan = PLAN.but(processes=8, rounds=10, round_ms=20.0)
    cuts: list[int] = []
    agents: set[int] = set()

    said: list[str] = []

    def heard(what: str, done: int, _total: int) -> None:
        said.append(what)
        if what.startswith("process") and done in (1, 3) and len(cuts) < 2:
            agents.update(agents_of(sshd))
            cuts.append(sshd.cut())

    with device.open() as session:
        (result,) = session.measure([null_job(tmp_path, "spin=200")], plan, heard)
        assert agents_of(sshd).isdisjoint(agents)
    assert len(cuts) == 2
    assert min(cuts) >= 1
    assert sum("trying again" in what for what in said) >= 2
    assert result.outcome is Outcome.OK
    assert len(result.processes) == 8
    end = time.monotonic() + 60
    while any(psutil.pid_exists(pid) for pid in agents) and time.monotonic() < end:
        time.sleep(0.05)
    assert not [pid for pid in agents if psutil.pid_exists(pid)]


def agents_of(sshd: LoopbackSshd) -> set[int]:
    found = set[int]()
    for each in [below for one in sshd.connections() for below in one.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # it has just ended
            if "serve" in each.cmdline() and "python" in each.name():
                found.add(each.pid)
    return found


def test_a_killed_agent_is_started_again(device: SshDevice, sshd: LoopbackSshd, tmp_path: Path) -> None:
    with device.open() as session:
        session.describe()
        (agent,) = agents_of(sshd)
        psutil.Process(agent).kill()
        (result,) = session.measure([null_job(tmp_path)], PLAN)
        assert result.outcome is Outcome.OK


def test_a_board_that_stays_away(device: SshDevice, tmp_path: Path) -> None:
    with LoopbackSshd() as server:
        gone = device.but(config=server.config, patience_s=1.5)
        session = gone.open()
        session.describe()
        server.stop()
        with pytest.raises(DeviceUnreachable, match=r"did not come back within 1\.5 s"):
            session.measure([null_job(tmp_path)], PLAN)
        session.close()
        server.start()
        gone.open().close()  # the lock is free again


def test_a_frozen_connection_is_noticed_and_left(device: SshDevice, sshd: LoopbackSshd, tmp_path: Path) -> None:
    """The server's process sleeps, as a network that swallows everything."""
    with device.open() as session:
        session._session._silence_s = 2.0  # type: ignore[union-attr]
        (frozen,) = sshd.connections()
        for process in [frozen, *frozen.children()]:
            process.suspend()
        thawed = threading.Timer(60.0, frozen.kill)
        thawed.start()
        (result,) = session.measure([null_job(tmp_path)], PLAN)
        thawed.cancel()
        for process in [frozen, *frozen.children(recursive=True)]:
            process.kill()
    assert result.outcome is Outcome.OK


def test_two_computers_cannot_measure_at_once(device: SshDevice) -> None:
    first = device.open()
    try:
        with pytest.raises(DeviceBusy, match="in use by process"):
            device.but(name=f"{device.name}-by-another-name").open()
    finally:
        first.close()


def test_it_tells_what_it_is_while_it_is_in_use(device: SshDevice, sshd: LoopbackSshd, tmp_path: Path) -> None:
    with device.open() as session:
        (agent,) = agents_of(sshd)
        assert device.describe() == session.describe()
        assert agent in agents_of(sshd), "the one that measures goes on"
        (result,) = session.measure([null_job(tmp_path)], PLAN)
    assert result.outcome is Outcome.OK


def test_a_later_session_replaces_an_agent_that_lives_on(device: SshDevice, sshd: LoopbackSshd, tmp_path: Path) -> None:
    """Its board has not noticed that the host is gone: its end of the connection sleeps."""
    np.save(tmp_path / "x.npy", np.zeros((3, 1), np.float32))
    before = set(sshd.connections())
    lost = device.open()
    board = Path(lost._connected()._link.place.folder)  # type: ignore[attr-defined]
    frozen = [below for one in set(sshd.connections()) - before for below in [one, *one.children()]]
    (agent,) = agents_of(sshd)
    left = board / "sessions/0123456789abcdef/1"
    left.mkdir(parents=True)
    for process in frozen:
        process.suspend()
    try:
        lost.close()
        assert psutil.pid_exists(agent)
        with pytest.raises(DeviceBusy, match="in use by process"):
            device.but(name=f"{device.name}-of-another-computer").open()
        with device.open() as session:
            assert not left.exists()
            assert agent not in agents_of(sshd)
            answer = session.run(null_job(tmp_path), [tmp_path / "x.npy"])
        assert answer.outcome is Outcome.OK, answer.detail
    finally:
        for process in [*frozen, *[below for one in frozen if one.is_running() for below in one.children()]]:
            with contextlib.suppress(psutil.Error):
                process.kill()


def test_a_changed_host_key(device: SshDevice, sshd: LoopbackSshd) -> None:
    sshd.another_key()
    with pytest.raises(DeviceUnreachable, match="host key") as caught:
        device.open()
    assert "changed" in caught.value.message
    assert "ssh-keygen -R" in caught.value.remedy


def test_an_unknown_host_key(device: SshDevice, sshd: LoopbackSshd) -> None:
    (sshd.folder / "known_hosts").write_text("")
    with pytest.raises(DeviceUnreachable, match="its host key is not known"):
        device.open()


def test_nobody_listens(device: SshDevice, sshd: LoopbackSshd) -> None:
    with pytest.raises(DeviceUnreachable, match="no ssh server answers there"):
        device.but(port=1, patience_s=3600.0).open()  # at once: only what was reached once is waited for


def test_a_key_that_opens_nothing(device: SshDevice, sshd: LoopbackSshd, tmp_path: Path) -> None:
    allowed = sshd.folder / "authorized_keys"
    kept = allowed.read_text()
    allowed.write_text("")
    try:
        with pytest.raises(DeviceUnreachable, match="lets nobody in"):
            device.open()
    finally:
        allowed.write_text(kept)


def test_a_python_that_is_not_there(device: SshDevice) -> None:
    with pytest.raises(MissingError, match="no Python was found"):
        device.but(python="/nowhere/python; touch executed").open()
    assert not Path("executed").exists()


def test_a_host_that_is_an_option_is_refused() -> None:
    for host in ("-oProxyCommand=touch executed", "a b", "a;b", "$(b)", ""):
        with pytest.raises(ValueError, match="host"):
            SshDevice(name="board", host=host)


def test_a_folder_that_cannot_be_written(device: SshDevice) -> None:
    with pytest.raises(DeviceUnreachable, match="ended with status 1: mkdir"):
        device.but(folder="/proc/none").open()


def test_the_users_own_folder(device: SshDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    with device.but(folder="~/.cache/edgekd-test").open() as session:
        place = session._connected()._link.place  # type: ignore[attr-defined]
    assert place.folder == str(HOME / ".cache/edgekd-test")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo nonsense", "makes no sense"),
        ("head -c 1000000000 /dev/zero | tr '\\0' x", "sent a line of more than"),
        (
            """printf '{"id": 1, "done": {"protocol": 99, "python": "3", "pid": 1}}\\n'; cat >/dev/null""",
            "speaks protocol 99",
        ),
        ("""printf '{"id": 1, "done": {"protocol": NaN}}\\n'; cat >/dev/null""", "NaN is no number"),
        ("exit 3", "ended with status 3"),
    ],
    ids=["nonsense", "a gigabyte", "another protocol", "NaN", "gone"],
)
def test_what_answers_there_is_no_agent(
    device: SshDevice, impostor: Callable[[str], str], body: str, said: str
) -> None:
    with pytest.raises(DeviceUnreachable, match=said):
        device.but(python=impostor(body), patience_s=3600.0).open()  # neither it nor the connection is waited for


def test_what_answers_there_says_nothing(
    device: SshDevice, impostor: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AgentSession.__init__, "__defaults__", (2.0, None))
    with pytest.raises(DeviceUnreachable, match="did not answer within 2 s"):
        device.but(python=impostor("cat >/dev/null")).open()


def test_a_damaged_file_is_sent_again(device: SshDevice, tmp_path: Path) -> None:
    """A card that lost power keeps a file's size and not what was in it."""
    job = null_job(tmp_path, "spin=10")
    with device.open() as session:
        board = Path(session._connected()._link.place.folder)  # type: ignore[attr-defined]
        session.measure([job], PLAN)
    damaged = [*board.glob("blobs/*/*"), *board.glob("agent/*")]
    assert len(damaged) == 2
    for path in damaged:
        path.write_bytes(bytes(path.stat().st_size))
    with device.open() as session:
        (result,) = session.measure([job], PLAN)
    assert result.outcome is Outcome.OK


def test_what_was_not_used_for_a_week_goes_and_the_rest_stays(device: SshDevice, tmp_path: Path) -> None:
    old, new = null_job(tmp_path, "spin=10"), null_job(tmp_path, "spin=20")
    os.utime(new.artefact.path, (0, 0))  # when it was made here says nothing
    with device.open() as session:
        board = Path(session._connected()._link.place.folder)  # type: ignore[attr-defined]
        session.measure([old], PLAN)
        (first,) = board.glob("blobs/*/*")
        session.measure([new], PLAN)
    os.utime(first, (0, 0))
    with device.open() as session:
        session.describe()
        assert not first.exists()
        assert len(list(board.glob("blobs/*/*"))) == 1
        (result,) = session.measure([new], PLAN)
    assert result.outcome is Outcome.OK


def test_an_environment_that_is_not_whole_is_not_used(device: SshDevice, tmp_path: Path) -> None:
    plain = device.but(python=None, folder=f"{tmp_path}/board")
    broken = tmp_path / "board/env/bin/python"
    broken.parent.mkdir(parents=True)
    broken.symlink_to(sys.executable)
    with plain.open() as session:
        assert "/env/" not in session._connected()._link.place.python  # type: ignore[attr-defined]
    (tmp_path / "board/env/ready").touch()
    with plain.open() as session:
        assert session._connected()._link.place.python == str(broken)  # type: ignore[attr-defined]


def test_a_full_disk_is_no_lost_connection(device: SshDevice, tmp_path: Path) -> None:
    shell = device.shell()
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    with pytest.raises(DeviceUnreachable, match="No space left on device") as caught:
        shell.push(tmp_path / "file", "/dev/full")
    assert not isinstance(caught.value, ConnectionLost)
    with pytest.raises(DeviceUnreachable, match="a command on the device ended with status 1") as caught:
        shell.pull("/nowhere/file", tmp_path / "copy", 1000)
    assert not isinstance(caught.value, ConnectionLost)
    with pytest.raises(DeviceUnreachable, match="100000 bytes"):
        shell.pull(str(tmp_path / "file"), tmp_path / "copy", 1000)
    shell.close()


def test_a_python_in_the_home_folder_and_one_that_talks(device: SshDevice, tmp_path: Path) -> None:
    chatty = HOME / ".cache/edgekd-test-python"
    chatty.parent.mkdir(parents=True, exist_ok=True)
    chatty.write_text(f'#!/bin/sh\n[ "$1" = -c ] && echo python is starting\nexec {sys.executable} "$@"\n')
    chatty.chmod(0o755)
    try:
        with pytest.raises(MissingError, match="no Python was found"):
            device.but(python="~/.cache/edgekd-test-python").open()
        chatty.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        device.but(python="~/.cache/edgekd-test-python").open().close()
    finally:
        chatty.unlink()


def test_a_command_of_the_configuration_is_not_run(device: SshDevice, sshd: LoopbackSshd) -> None:
    kept = sshd.config.read_text()
    sshd.config.write_text(kept + "  RemoteCommand tmux attach\n  RequestTTY yes\n  ControlMaster auto\n")
    try:
        device.open().close()
    finally:
        sshd.config.write_text(kept)


def test_an_agent_that_only_says_it_lives(
    device: SshDevice, impostor: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekd.devices.session._GREETING_S", 1.0)
    python = impostor("""while :; do echo '{"id": 1, "alive": true}'; sleep 0.05; done""")
    with pytest.raises(DeviceUnreachable, match="says that it is alive and does not answer `hello`"):
        device.but(python=python).open()
