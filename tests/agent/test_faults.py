"""What the system refuses says nothing of a model; what a runtime says of it does."""

from __future__ import annotations

import errno
import os
import sys

import pytest

from edgekd.agent.child import Child
from edgekd.agent.faults import Fault, is_fault, is_shortage, is_want_of_memory
from edgekd.agent.limits import Limits, Yard
from edgekd.agent.messages import JobRequest
from edgekd.agent.serve import _damaged
from edgekd.agent.worker import _native
from edgekd.devices.zipapp import agent_path
from edgekd.errors import ConfigurationError


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


@pytest.mark.parametrize(
    ("error", "lack"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("bfc_arena.cc: Failed to allocate memory for requested buffer of size 1073741824"), True),
        (_caused(ConfigurationError.one("`build()` failed: ArrayError: "), MemoryError()), True),
        (_caused(RuntimeError("conversion failed"), RuntimeError("std::bad_alloc")), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (ValueError("Op builtin_code out of range: 250"), False),
    ],
)
def test_what_is_want_of_memory(error: BaseException, lack: bool) -> None:
    assert is_want_of_memory(error) is lack


def test_a_name_that_is_not_there_is_no_shortage() -> None:
    assert is_shortage(_caused(ValueError("can't"), OSError(errno.ENOSPC, "No space left on device")))
    assert not is_shortage(_caused(ValueError("can't"), FileNotFoundError(errno.ENOENT, "No such file", "x")))


def test_runtimes_get_paths_in_utf_8_whatever_the_locale_made_of_them() -> None:
    if sys.getfilesystemencoding() != "utf-8":
        pytest.skip("names of files are not UTF-8 here")
    read_as_ascii = "/tmp/ünï/model".encode().decode("ascii", "surrogateescape")
    assert _native(read_as_ascii) == "/tmp/ünï/model"
    with pytest.raises(Fault, match="is not UTF-8"):
        _native(os.fsdecode(b"/tmp/\xfc/model"))


def test_a_file_that_can_not_be_opened_says_nothing_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(agent_path())])
    job = JobRequest("null", "none", "/nowhere/model.tflite", "0" * 64, 1, {})
    with pytest.raises(Fault, match=r"can't read the model: .*No such file"):
        _damaged(job, lambda: None)
    with Child(job, 0, Yard(Limits()), lambda: None) as child:
        child.open(60.0)
        with pytest.raises(Fault, match="No such file"):
            child.load(60.0, 0)
