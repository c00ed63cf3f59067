"""Identity of this device, as far as it changes a figure. No runtime is imported to find out."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import platform
import re
from importlib import metadata
from typing import Any, Dict, List, Mapping, Optional, Sequence

__all__ = ["cpu_of", "extensions_of", "fingerprint", "is_installed", "memory_bytes_of"]

_EXTENSIONS = (
    # x86: what changes the kernels that are chosen, or the results of 8-bit products
    "sse4_1", "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni",
    "avx_vnni_int8", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16",
    # Arm
    "neon", "vfpv4", "asimd", "asimdhp", "fphp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme", "sme2",
)  # fmt: skip


def fingerprint(runtimes: Mapping[str, Any], root: str = "/") -> Dict[str, Any]:
    """The device described. ``root`` is where /proc and /sys are looked for.

    ``runtimes`` are those to look for. Each has its ``providers``, and its ``homes``: [module, [distributions]] pairs
    of which the first that is found counts.
    """
    info = _read(os.path.join(root, "proc/cpuinfo"))
    versions = {name: _version(asked["homes"]) for name, asked in runtimes.items()}
    found = {name: version for name, version in versions.items() if version}
    return {
        "cpu": cpu_of(info, root, platform.processor()),
        "architecture": platform.machine(),
        "cores": len(_cores()),
        "extensions": extensions_of(info),
        "memory_bytes": memory_bytes_of(_read(os.path.join(root, "proc/meminfo"))),
        "governor": _governor(root),
        "os": _system(root),
        "python": platform.python_version(),
        "runtimes": found,
        "providers": {name: list(runtimes[name]["providers"]) for name in found},
    }


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(1 << 20).replace("\0", "")
    except OSError:
        return ""


def _named(info: str, *names: str) -> str:
    for name in names:
        found = re.search(r"^%s\s*:\s*(.+)$" % re.escape(name), info, re.MULTILINE)
        if found:
            return found.group(1).strip()
    return ""


def cpu_of(info: str, root: str, otherwise: str) -> str:
    """The CPU's name; on Arm boards the board's own name and the part numbers of its kinds of core."""
    name = _named(info, "model name", "Hardware", "cpu model")
    parts = sorted(set(re.findall(r"^CPU part\s*:\s*(\S+)$", info, re.MULTILINE)))
    board = _read(os.path.join(root, "proc/device-tree/model")).strip()
    words = [board, name, " ".join("part " + part for part in parts)]
    return ", ".join(word for word in words if word) or otherwise or "unknown"


def _cores() -> List[int]:
    """Cores that work may run on here."""
    try:
        return sorted(os.sched_getaffinity(0))
    except AttributeError:
        return list(range(os.cpu_count() or 1))


def _governor(root: str) -> Optional[str]:
    """Governor of these cores; several that differ with commas."""
    place = os.path.join(root, "sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor")
    found = {_read(place % core).strip() for core in _cores()} - {""}
    return ", ".join(sorted(found)) or None


def extensions_of(info: str) -> List[str]:
    """Instruction sets of /proc/cpuinfo that change kernels or results."""
    flags = set(_named(info, "flags", "Features").split())
    return [name for name in _EXTENSIONS if name in flags]


def memory_bytes_of(info: str) -> int:
    """Memory of the machine in bytes, of /proc/meminfo; 0 where it isn't told."""
    found = re.search(r"^MemTotal:\s*(\d+) kB", info, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def _system(root: str) -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)', _read(os.path.join(root, "etc/os-release")), re.MULTILINE)
    return "%s, %s %s" % (found.group(1) if found else "unknown", platform.system(), platform.release())


def _version(homes: Sequence[Any]) -> Optional[str]:
    """The version of the module that would be imported; None where there's none."""
    for place, (module, distributions) in enumerate(homes):
        if not is_installed(module):
            continue
        prefix = module + " " if place else ""
        for name in distributions:
            try:
                return prefix + metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        return prefix + "unknown"
    return None


def is_installed(module: str) -> bool:
    """True where a module can be found; neither it nor a package that it lies in is imported."""
    top, *rest = module.split(".")
    found = importlib.util.find_spec(top)
    for part in rest:
        if found is None or found.submodule_search_locations is None:
            return False
        found = importlib.machinery.PathFinder.find_spec(part, found.submodule_search_locations)
    return found is not None
