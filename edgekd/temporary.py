"""Temporary folders named by the process that made them, so that a later one can remove those of a killed process."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from pathlib import Path

import psutil

__all__ = ["prefix", "sweep_temporary"]

_NAMED = re.compile(r"edgekd-(\d+)-\w+")
_KEPT_S = 24 * 3600.0  # other containers' processes may share the folder, and their numbers are meaningless here


def prefix() -> str:
    """Prefix for `tempfile`: names that `sweep_temporary` recognises."""
    return f"edgekd-{os.getpid()}-"


def sweep_temporary(kept_s: float = _KEPT_S) -> None:
    """Remove this person's folders whose process is gone and which were not written to for a day."""
    oldest_s = time.time() - kept_s
    for path in Path(tempfile.gettempdir()).glob("edgekd-*"):
        match = _NAMED.fullmatch(path.name)
        if match is None or psutil.pid_exists(int(match[1])):
            continue
        try:
            stat = path.lstat()
        except FileNotFoundError:  # another process swept it
            continue
        if stat.st_uid == os.getuid() and stat.st_mtime < oldest_s and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
