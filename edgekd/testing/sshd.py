"""A real ssh server on loopback, with keys of its own: a board for tests, without a board.

Nothing of the person's own ssh is read or written. Its connections can be cut or frozen, as a network does.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import psutil

__all__ = ["LoopbackSshd", "sshd_path"]


def sshd_path() -> str | None:
    """The server's program (it insists on its absolute path), or None where it isn't installed."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class LoopbackSshd:
    """Up between construction and :meth:`close`. ``config`` is an ssh configuration that knows the host ``host``."""

    host = "edgekd-board"

    def __init__(self) -> None:
        program = sshd_path()
        if program is None:
            raise RuntimeError("no sshd here: apt-get install openssh-server")
        self.folder = Path(tempfile.mkdtemp(prefix="edgekd-sshd-", dir="/tmp"))  # short: sockets lie beside it
        self.port = _free_port()
        for name in ("host", "user"):
            _keygen(self.folder / name)
        shutil.copy(self.folder / "user.pub", self.folder / "authorized_keys")
        self.know(self.folder / "host.pub")
        self.config = self.folder / "ssh_config"
        self.config.write_text(_CLIENT.format(host=self.host, port=self.port, user=getpass.getuser(), at=self.folder))
        server = self.folder / "sshd_config"
        server.write_text(_SERVER.format(port=self.port, at=self.folder))
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self._program, self._server = program, server
        self._log = (self.folder / "log").open("ab")
        self._process = self.start()

    def __enter__(self) -> LoopbackSshd:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self) -> subprocess.Popen[bytes]:
        """Listen. Raises RuntimeError where the server doesn't come up."""
        process = subprocess.Popen([self._program, "-D", "-e", "-f", str(self._server)], stderr=self._log)
        end = time.monotonic() + 10
        while time.monotonic() < end and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    self._process = process
                    return process
            time.sleep(0.02)
        process.kill()
        raise RuntimeError(f"sshd doesn't start: {(self.folder / 'log').read_text()[-2000:]}")

    def know(self, key: Path) -> None:
        """Write a public key down as the host's."""
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {key.read_text()}")

    def another_key(self) -> None:
        """Let the client know another key than the host's from now on: it sees a stranger's answer."""
        other = self.folder / "other"
        if not other.exists():
            _keygen(other)
        self.know(other.with_suffix(".pub"))

    def connections(self) -> list[psutil.Process]:
        """The server's processes, one a connection."""
        return psutil.Process(self._process.pid).children()

    def cut(self) -> int:
        """Kill every connection's server process; how many there were."""
        found = self.connections()
        for process in found:
            process.kill()
        return len(found)

    def stop(self) -> None:
        """Nobody listens any more; connections that are open are cut too."""
        self.cut()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """End it, and leave nothing behind."""
        if self._process.poll() is None:
            self.stop()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _keygen(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {at}/host
AuthorizedKeysFile {at}/authorized_keys
PidFile {at}/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
"""

_CLIENT = """\
Host {host}
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {at}/user
  IdentitiesOnly yes
  UserKnownHostsFile {at}/known_hosts
  GlobalKnownHostsFile /dev/null
  KexAlgorithms curve25519-sha256
"""
# the default key exchange, against computers that nobody has yet, takes a third of a connection's processor time
