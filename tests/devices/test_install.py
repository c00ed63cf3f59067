"""Runtimes installed on a board over a real ssh server, by its own pip from a folder of small packages."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekd import api
from edgekd.errors import MissingError, UnknownName, UsageError
from edgekd.testing.sshd import LoopbackSshd, sshd_path

pytestmark = [
    pytest.mark.runtime,
    pytest.mark.skipif(sshd_path() is None, reason="no sshd: apt-get install openssh-server"),
]


def wheel(folder: Path, name: str, version: str, module: str, code: str = "", needs: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    about = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{about}-py3-none-any.whl"
    requires = f"Requires-Dist: {needs}\n" if needs else ""
    with zipfile.ZipFile(path, "w") as made:
        made.writestr(f"{module}/__init__.py", code)
        made.writestr(f"{module}/interpreter.py", "")
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}"
        made.writestr(f"{about}.dist-info/METADATA", metadata)
        made.writestr(f"{about}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr(f"{about}.dist-info/RECORD", "")
    return path


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    wheel(folder, "numpy", "2.1", "numpy")
    wheel(folder, "ai-edge-litert", "2.0", "ai_edge_litert")
    wheel(folder, "onnxruntime", "1.0", "onnxruntime")
    return folder


@pytest.fixture(scope="module")
def sshd(packages: Path) -> Iterator[LoopbackSshd]:
    with LoopbackSshd() as server:
        server.stop()
        with (server.folder / "sshd_config").open("a") as config:
            config.write(f"SetEnv PIP_NO_INDEX=1 PIP_FIND_LINKS={packages} PIP_CONFIG_FILE=/dev/null\n")
        server.start()
        yield server


@pytest.fixture
def board(sshd: LoopbackSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder on the board; its device file is `board`."""
    (tmp_path / "devices").mkdir()
    folder = tmp_path / "there's"
    (tmp_path / "devices/board.yaml").write_text(
        "schema: edgekd.device/1\ntitle: A board\n"
        f'connection: {{kind: ssh, host: {sshd.host}, config: {sshd.config}, folder: "{folder}"}}\n'
    )
    monkeypatch.chdir(tmp_path)
    return folder


def environment(board: Path) -> str:
    """The name of the one in use, which is the only one."""
    (found,) = [path.name for path in (board / "envs").iterdir() if path.name != "current"]
    assert (board / "envs/current").read_text() == f"envs/{found}\n"
    return found


def test_a_second_one_takes_the_place_of_the_first_where_it_works(board: Path, packages: Path, tmp_path: Path) -> None:
    first = api.install("board", ["litert"], python=sys.executable)
    assert dict(first.runtimes) == {"litert": "2.0"}
    made = environment(board)
    wheel(packages, "ai-edge-litert", "3.0", "ai_edge_litert")

    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    second = api.install("board", ["onnxruntime"], python=str(other))
    assert "-m venv envs/" in (tmp_path / "asked").read_text()
    assert dict(second.runtimes) == {"litert": "2.0", "onnxruntime": "1.0"}  # not another version by the way
    assert environment(board) != made

    made = environment(board)
    with pytest.raises(MissingError, match="openvino"):
        api.install("board", ["openvino"])
    wheel(packages, "openvino", "1.0", "openvino", "raise ImportError('needs glibc 2.99')")
    with pytest.raises(MissingError, match=r"glibc 2\.99"):  # it can be installed, and is of no use
        api.install("board", ["openvino"])
    assert environment(board) == made
    assert dict(api.probe("board").fingerprint.runtimes) == dict(second.runtimes)


def test_one_of_an_earlier_layout_is_used_until_then(board: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", board / "env"], check=True)
    (board / "env/ready").touch()
    api.probe("board")
    api.install("board", ["litert"])
    environment(board)
    assert not (board / "env").exists()


def test_runtimes_whose_python_an_upgrade_took_away_are_installed_again(board: Path, packages: Path) -> None:
    first = api.install("board", ["litert"], python=sys.executable)
    wheel(packages, "ai-edge-litert", "9.0", "ai_edge_litert")
    for link in (board / "envs" / environment(board) / "bin").glob("python*"):
        link.unlink()
    second = api.install("board", ["onnxruntime"], python=sys.executable)
    assert dict(second.runtimes) == {**first.runtimes, "onnxruntime": "1.0"}


def test_openvino_is_looked_at_without_its_telemetry(board: Path, packages: Path, tmp_path: Path) -> None:
    imported = tmp_path / "imported"
    code = "try:\n    import openvino_telemetry\nexcept ImportError:\n    pass\n"
    wheels = [
        wheel(packages, "openvino", "2.0", "openvino", code, needs="openvino-telemetry"),
        wheel(packages, "openvino-telemetry", "1.0", "openvino_telemetry", f"open({str(imported)!r}, 'w')"),
    ]
    try:
        assert dict(api.install("board", ["openvino"], python=sys.executable).runtimes) == {"openvino": "2.0"}
    finally:
        for path in wheels:
            path.unlink()
    python = board / "envs" / environment(board) / "bin/python"
    assert not imported.exists()
    subprocess.run([python, "-c", "import openvino"], check=True)
    assert imported.exists()  # where nothing hides it


def test_what_the_agent_does_not_find_in_the_end_is_no_success(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probed = api.probe("board")
    monkeypatch.setattr("edgekd.devices.install.probe_device", lambda _: probed)  # by another Python, say
    with pytest.raises(MissingError, match="litert is installed on board, and the agent there does not find it"):
        api.install("board", ["litert"], python=sys.executable)


def test_an_environment_that_would_not_be_used_is_not_made(board: Path, tmp_path: Path) -> None:
    file = tmp_path / "devices/board.yaml"
    file.write_text(file.read_text().replace("connection: {", f"connection: {{python: {sys.executable}, "))
    with pytest.raises(UsageError, match="names its own Python") as caught:
        api.install("board", ["tflite-runtime"])
    assert f"`{sys.executable} -m pip install tflite-runtime 'numpy<2'`" in caught.value.remedy
    (tmp_path / "program").touch()
    (tmp_path / "devices/phone.yaml").write_text(
        "schema: edgekd.device/1\ntitle: A phone\n"
        f"connection: {{kind: adb-tools, serial: '1', benchmark_model: {tmp_path}/program}}\n"
    )
    with pytest.raises(UsageError, match="vendors' own programs"):
        api.install("phone", ["litert"])
    assert not board.exists()


def test_what_cannot_be_asked_for(board: Path) -> None:
    with pytest.raises(UnknownName, match="onnxrutime"):
        api.install("board", ["onnxrutime"])
    with pytest.raises(UsageError, match="reached without a shell"):
        api.install("this-computer", ["litert"])
