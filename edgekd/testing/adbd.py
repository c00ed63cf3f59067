"""A real ``adbd`` on loopback: a phone for tests, without a phone.

Debian 13's adbd for this processor, in a root folder of its own that is only unpacked (built once, kept in the cache:
about 300 MB with Python and runtimes), started in its own mount and process namespaces. It can be killed and frozen,
as phones are. Needs root, ``adb``, ``mmdebstrap`` and a C compiler; :func:`missing` says what isn't there.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import platformdirs
import psutil

__all__ = ["LoopbackAdbd", "build_root", "missing"]

_PACKAGES = (
    "base-files", "adbd", "busybox", "python3-minimal", "python3.13", "libpython3.13-stdlib", "libstdc++6", "zlib1g",
)  # fmt: skip
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64")
_RUNTIMES = ("numpy", "ai-edge-litert", "onnxruntime")
_SITE = "usr/lib/python3/dist-packages"


def missing() -> str:
    """Why it can't be here; empty where it can."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        return "only for x86-64 Linux"
    if os.getuid() != 0:
        return "needs root"
    absent = [name for name in ("adb", "mmdebstrap", "cc", "unshare") if shutil.which(name) is None]
    return f"no {', '.join(absent)}: apt-get install adb mmdebstrap gcc libc6-dev" if absent else ""


def build_root(folder: Path | None = None) -> Path:
    """The phone's files, built once (about a minute). Raises CalledProcessError where packages can't be had."""
    folder = folder or Path(platformdirs.user_cache_dir("edgekd")) / "testing"
    root = folder / "adbd-root-2"
    if root.is_dir():
        return root
    folder.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix="adbd-root-", dir=folder))
    part.chmod(0o755)
    _run(
        [
            "mmdebstrap",
            "--quiet",
            "--arch=amd64",
            "--variant=extract",
            f"--include={','.join(_PACKAGES)}",
            "trixie",
            part,
        ]
    )
    listed = subprocess.run(
        ["chroot", part, "/usr/bin/busybox", "--list"], check=True, capture_output=True, text=True
    ).stdout.split()
    for name in listed:
        _link(part / "usr/bin" / name, "busybox")
    _link(part / "usr/bin/python3", "python3.13")
    (part / "data/local/tmp").mkdir(parents=True)
    (part / "system/bin").mkdir(parents=True)
    _link(part / "system/bin/sh", "/bin/sh")
    (part / "system/build.prop").write_text("ro.product.model=Loopback\nro.build.version.release=15\n")
    getprop = part / "system/bin/getprop"
    getprop.write_text(_GETPROP)
    getprop.chmod(0o755)
    source = part / "bindshim.c"
    source.write_text(_SHIM)
    _run(["cc", "-shared", "-fPIC", "-O1", "-o", part / "usr/lib/bindshim.so", source, "-ldl"])
    platforms = [word for name in _PLATFORMS for word in ("--platform", name)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", part / _SITE]
    _run([*pip, "--only-binary=:all:", *platforms, "--python-version", "3.13", *_RUNTIMES])
    # packages that are only unpacked have no bytecode, and the agent writes none: every process would compile anew
    _run(["chroot", part, "/usr/bin/python3", "-m", "compileall", "-q", "/usr/lib/python3.13", f"/{_SITE}"])
    part.rename(root)
    return root


class LoopbackAdbd:
    """Up between construction and :meth:`close`. ``environment`` is what ``adb`` needs to find its own server."""

    python = "/usr/bin/python3"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port, server_port = _free_port(), _free_port()
        self._home = tempfile.mkdtemp(prefix="edgekd-adb-")
        self.environment = {"ANDROID_ADB_SERVER_PORT": str(server_port), "HOME": self._home}
        self._process = self._start()

    def __enter__(self) -> LoopbackAdbd:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def address(self) -> str:
        """Address that ``adb connect`` takes."""
        return f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        """The phone dies, with everything on it."""
        self._process.kill()  # not SIGTERM, which unshare passes over; the namespace goes with it
        self._process.wait()

    def start(self) -> None:
        """Switch it on again."""
        self._process = self._start()

    def freeze(self) -> None:
        """Stop everything on it; it is still listed as a device."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):  # a measured process ends while it is looked for
                process.suspend()

    def thaw(self) -> None:
        """Let it go on."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def close(self) -> None:
        """End it, and the server that ``adb`` has started for it."""
        if self._process.poll() is None:
            self.kill()
        subprocess.run(["adb", "kill-server"], env={**os.environ, **self.environment}, capture_output=True, check=False)
        shutil.rmtree(self._home, ignore_errors=True)

    def _processes(self) -> list[psutil.Process]:
        return psutil.Process(self._process.pid).children(recursive=True)

    def _start(self) -> subprocess.Popen[bytes]:
        inside = [
            "/usr/bin/env", "-i", "PATH=/system/bin:/usr/bin:/usr/sbin", "HOME=/data/local/tmp",
            f"ADBD_PORT={self.port}", "LD_PRELOAD=/usr/lib/bindshim.so", "/usr/lib/android-sdk/platform-tools/adbd",
        ]  # fmt: skip
        mounted = 'mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev"'
        script = f'root=$1; shift; {mounted} && exec chroot "$root" "$@"'
        own = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "sh", "-c", script, "sh", str(self.root)]
        process = subprocess.Popen([*own, *inside], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while time.monotonic() < end and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return process
            time.sleep(0.05)
        process.kill()
        raise RuntimeError("adbd doesn't start")


def _run(words: Sequence[object]) -> None:
    subprocess.run([str(word) for word in words], check=True)


def _link(path: Path, target: str) -> None:
    if not path.exists() and not path.is_symlink():
        path.symlink_to(target)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_GETPROP = """\
#!/bin/sh
f=/system/build.prop
[ $# = 0 ] && { sed -n 's/^\\([^#=]*\\)=\\(.*\\)$/[\\1]: [\\2]/p' $f; exit; }
v=$(sed -n "s/^$1=//p" $f | tail -n1)
echo "${v:-$2}"
"""

_SHIM = """\
/* adbd listens on every interface: every listener on its port is bound to loopback instead, and vsock is refused. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

int bind(int descriptor, const struct sockaddr *address, socklen_t length) {
  static int (*real)(int, const struct sockaddr *, socklen_t);
  if (!real) real = dlsym(RTLD_NEXT, "bind");
  const char *port = getenv("ADBD_PORT");
  if (address->sa_family == AF_VSOCK) { errno = EACCES; return -1; }
  if (port && address->sa_family == AF_INET6) {
    struct sockaddr_in6 own = *(const struct sockaddr_in6 *)address;
    const struct in6_addr loopback = {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1}}};
    if (ntohs(own.sin6_port) == atoi(port)) {
      own.sin6_addr = loopback;
      return real(descriptor, (const struct sockaddr *)&own, sizeof own);
    }
  }
  if (port && address->sa_family == AF_INET) {
    struct sockaddr_in own = *(const struct sockaddr_in *)address;
    if (ntohs(own.sin_port) == atoi(port)) {
      own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      return real(descriptor, (const struct sockaddr *)&own, sizeof own);
    }
  }
  return real(descriptor, address, length);
}
"""
