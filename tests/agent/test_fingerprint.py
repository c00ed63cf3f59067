"""The fingerprint, read from files that play other machines."""

from __future__ import annotations

from pathlib import Path

from edgekd.agent.fingerprint import fingerprint
from edgekd.devices._protocol import Fingerprint

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
    return Fingerprint.model_validate(fingerprint(str(root)))


def test_an_arm_board(tmp_path: Path) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_text("Raspberry Pi 5 Model B\0")
    governor = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    governor.mkdir(parents=True)
    (governor / "scaling_governor").write_text("ondemand\n")
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
    found = fingerprint()
    assert not {"onnxruntime", "openvino", "ai_edge_litert"} & (set(sys.modules) - before)
    assert set(found["runtimes"]) == {"litert", "onnxruntime", "openvino"}
    assert found["providers"]["litert"] == ["xnnpack", "builtin"]
