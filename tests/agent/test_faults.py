"""What the system refuses says nothing of a model; what a runtime says of it does."""

from __future__ import annotations

import errno
import os
import sys

import pytest

from edgekd.agent.faults import Fault, is_fault
from edgekd.agent.worker import _native


def _caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "model.tflite"), True),
        (RuntimeError("ONNXRuntimeError: system error number 24 Too many open files"), True),
        (RuntimeError("basic_ios::clear: iostream error"), True),  # OpenVINO on a full disk
        (_caused(ValueError("can't read it"), OSError(errno.EIO, "Input/output error")), True),
        (Fault("no"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), False),  # has an outcome of its own
        (OSError("Unable to open file (file signature not found)"), False),  # a library's word for another format
        (ValueError("Op builtin_code out of range: 250"), False),
    ],
)
def test_what_is_a_fault_of_the_surroundings(error: BaseException, fault: bool) -> None:
    assert is_fault(error) is fault


def test_runtimes_get_paths_in_utf_8_whatever_the_locale_made_of_them() -> None:
    if sys.getfilesystemencoding() != "utf-8":
        pytest.skip("names of files are not UTF-8 here")
    read_as_ascii = "/tmp/ünï/model".encode().decode("ascii", "surrogateescape")
    assert _native(read_as_ascii) == "/tmp/ünï/model"
    with pytest.raises(Fault, match="is not UTF-8"):
        _native(os.fsdecode(b"/tmp/\xfc/model"))
