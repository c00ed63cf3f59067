"""The fingerprint, read from files that play other machines."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from edgekd.agent.fingerprint import fingerprint, is_installed
from edgekd.devices._protocol import Fingerprint
from edgekd.ir.backends import asked_of_agent

PI = """processor\t: 0
Features\t: fp asimd evtstrm aes asimdhp cpuid asimddp
CPU part\t: 0xd0b

processor\t: 1
Features\t: fp asimd evtstrm aes asimdhp cpuid asimddp
CPU part\t: 0xd0b
"""
XEON = "model name\t: Some Xeon\nflags\t\t: fpu sse4_2 avx2 avx512f avx512_vnni amx_int8 fsgsbase\n"


def machine(root: Path, **files: str) -> Fingerprint:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Fingerprint.model_validate(fingerprint({}, str(root)))


def govern(root: Path, *governors: str) -> None:
    """Of cores from 0 on, the last one of all that follow."""
    for core in range(max(os.sched_getaffinity(0)) + len(governors)):
        place = root / f"sys/devices/system/cpu/cpu{core}/cpufreq"
        place.mkdir(parents=True)
        (place / "scaling_governor").write_text(governors[min(core, len(governors) - 1)] + "\n")


def test_the_governors_of_the_cores_that_work_runs_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2, 9})  # nothing is known of the last
    govern(tmp_path, "powersave", "walt", "performance")
    shutil.rmtree(tmp_path / "sys/devices/system/cpu/cpu9")
    found = machine(tmp_path, proc__cpuinfo=PI)
    assert (found.governor, found.cores) == ("performance, walt", 3)


def test_an_arm_board(tmp_path: Path) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_text("Raspberry Pi 5 Model B\0")
    govern(tmp_path, "ondemand")
    found = machine(tmp_path, proc__cpuinfo=PI, proc__meminfo="MemTotal:  8000000 kB\n")
    assert found.cpu == "Raspberry Pi 5 Model B, part 0xd0b"
    assert found.extensions == ("asimd", "asimdhp", "asimddp")
    assert found.governor == "ondemand"
    assert found.memory_bytes == 8_000_000 * 1024


def test_a_server(tmp_path: Path) -> None:
    found = machine(tmp_path, proc__cpuinfo=XEON)
    assert found.cpu == "Some Xeon"
    assert found.extensions == ("sse4_2", "avx2", "avx512f", "avx512_vnni", "amx_int8")
    assert found.governor is None


def test_runtimes_are_found_without_importing_them() -> None:
    import sys

    before = set(sys.modules)
    found = fingerprint(asked_of_agent())
    assert not {"onnxruntime", "openvino", "ai_edge_litert"} & (set(sys.modules) - before)
    assert set(found["runtimes"]) == {"litert", "onnxruntime", "openvino"}
    assert found["providers"]["litert"] == ["xnnpack", "builtin"]


def test_a_module_below_a_package_is_found_without_importing_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "upper/inner").mkdir(parents=True)
    (tmp_path / "upper/__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "upper/inner/deep.py").touch()
    (tmp_path / "alone.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    found = ["upper", "upper.inner", "upper.inner.deep", "alone"]
    gone = ["nowhere", "nowhere.inner", "upper.other", "upper.other.deep", "alone.inner", "upper.inner.deep.more"]
    assert [name for name in found + gone if is_installed(name)] == found


def test_a_runtime_below_a_package_that_is_not_there_hides_no_other() -> None:
    asked = {"odd": {"providers": ["cpu"], "homes": [["nowhere.inner", ["odd"]]]}, **asked_of_agent()}
    assert set(fingerprint(asked)["runtimes"]) == {"litert", "onnxruntime", "openvino"}
