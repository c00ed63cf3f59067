"""Operators' times from LiteRT's own profiler, also inside XNNPACK.

No Python interface reaches it, but the C functions in the wheel's library do. They are no promised interface: whatever
goes wrong here leaves the operators out, and since the profile has a process of its own, even a crash does no more.
The profiler drops what is below a microsecond from every operator's time. Where most of a call is lost that way,
what is left would tell a story of its own, and nothing is told.
The operators of each partition that XNNPACK took are numbered from 0, and the summary merges equal ones of several
partitions into one row: their mean time, and the calls of all.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
import time
from typing import Any, List, Sequence

from edgekd.agent.runtimes.base import Refusal, Tensor, TimedOperator

__all__ = ["believed", "profile", "read_summary"]

_ELEMENTS = {"float32": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int16": 7, "int8": 9, "float16": 10}
_CPU = 1
_MOST_AXES = 8
_WARMUP_CALLS = 5
_LEAST_LISTED = 0.5  # of a call's time
_ROW = re.compile(
    r"^\s*(?P<kind>\S.*?)\s+[\d.]+\s+[\d.]+\s+(?P<ms>[\d.]+)\s+[\d.]+%\s+[\d.]+%\s+[\d.]+\s+(?P<times>\d+)\s+"
    r"\[(?P<owner>[^\]]*)\]:(?P<number>\d+)\s*$"
)
_PRECISION = re.compile(r"\b(QD8|QS8|QU8|QC8W?|QC4W?|F16|F32)\b")


def profile(
    path: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], threads: int, calls: int
) -> List[TimedOperator]:
    """Mean times over some calls, in order of running. Raises OSError, AttributeError or Refusal where it can't."""
    import ai_edge_litert

    library = ctypes.CDLL(os.path.join(os.path.dirname(ai_edge_litert.__file__), "libLiteRt.so"))
    compiled, environment = _compile(library, path, threads)
    profiler, text = ctypes.c_void_p(), ctypes.c_char_p()
    _do(library, "LiteRtCompiledModelGetProfiler", compiled, ctypes.byref(profiler))
    given = _buffers(library, environment, compiled, "Input", inputs)
    taken = _buffers(library, environment, compiled, "Output", outputs)
    first, one = ctypes.c_size_t(0), ctypes.c_size_t
    run = (compiled, first, one(len(inputs)), given, one(len(outputs)), taken)
    times_us = []  # while nothing is noted down, which takes many times as long as a small model
    for _ in range(_WARMUP_CALLS + calls):
        begun = time.perf_counter()
        _do(library, "LiteRtRunCompiledModel", *run)
        times_us.append(1e6 * (time.perf_counter() - begun))
    _do(library, "LiteRtStartProfiler", profiler)
    for _ in range(calls):
        _do(library, "LiteRtRunCompiledModel", *run)
    _do(library, "LiteRtStopProfiler", profiler)
    _do(library, "LiteRtGetProfileSummary", profiler, compiled, ctypes.byref(text))
    summary = (text.value or b"").decode("utf-8", "replace")
    return believed(read_summary(summary, calls), sorted(times_us)[len(times_us) // 2])


def believed(operators: List[TimedOperator], call_us: float) -> List[TimedOperator]:
    """The same, if they make up most of a call, whose median time is given. Raises Refusal."""
    listed_us = sum(operator.time_us for operator in operators)
    if operators and listed_us < _LEAST_LISTED * call_us:
        raise Refusal(
            "the profiler drops what is below a microsecond, and tells %.1f of a call's %.1f us: "
            "too little to go by" % (listed_us, call_us)
        )
    return operators


def read_summary(text: str, calls: int) -> List[TimedOperator]:
    """The operators of one of so many calls, in order of running, a merged row's together; empty without the table."""
    operators: List[TimedOperator] = []
    _, _, rest = text.partition(" Run Order ")
    for line in rest.splitlines()[1:]:
        if line.startswith("==="):
            break
        row = _ROW.match(line)
        if row:
            precision = _PRECISION.search(row.group("kind"))
            name = "%s:%s" % (row.group("owner"), row.group("number"))
            found = precision.group(1) if precision else ""
            one = TimedOperator(name, row.group("kind"), float(row.group("ms")) * 1e3, found)
            operators += [one] * max(1, round(int(row.group("times")) / calls))
    return operators


def _compile(library: Any, path: str, threads: int) -> Any:
    environment, model, options, compiled = (ctypes.c_void_p() for _ in range(4))
    _do(library, "LiteRtCreateEnvironment", 0, None, ctypes.byref(environment))
    _do(library, "LiteRtCreateModelFromFile", environment, path.encode(), ctypes.byref(model))
    _do(library, "LiteRtCreateOptions", ctypes.byref(options))
    _do(library, "LiteRtSetOptionsHardwareAccelerators", options, _CPU)
    libc = ctypes.CDLL(None)
    libc.strdup.restype = ctypes.c_void_p
    free = ctypes.cast(libc.free, ctypes.c_void_p)
    texts = {b"runtime_options_string": b"enable_profiling = true\n", b"xnnpack": b"num_threads = %d\n" % threads}
    for name, text in texts.items():
        opaque = ctypes.c_void_p()
        copy = ctypes.c_void_p(libc.strdup(text))  # the library frees it
        _do(library, "LiteRtCreateOpaqueOptions", name, copy, free, ctypes.byref(opaque))
        _do(library, "LiteRtAddOpaqueOptions", options, opaque)
    _do(library, "LiteRtCreateCompiledModel", environment, model, options, ctypes.byref(compiled))
    return compiled, environment


def _buffers(library: Any, environment: Any, compiled: Any, kind: str, tensors: Sequence[Tensor]) -> Any:
    made = (ctypes.c_void_p * len(tensors))()
    for index, tensor in enumerate(tensors):
        if tensor.dtype not in _ELEMENTS or len(tensor.shape) > _MOST_AXES:
            raise Refusal("no profile of a model with a tensor of %s %s" % (tensor.dtype, tensor.shape))
        needs, buffer = ctypes.c_void_p(), ctypes.c_void_p()
        size = ctypes.c_size_t
        which = "LiteRtGetCompiledModel%sBufferRequirements" % kind
        _do(library, which, compiled, size(0), size(index), ctypes.byref(needs))
        axes = list(tensor.shape) + [0] * (_MOST_AXES - len(tensor.shape))
        packed = struct.pack("<iI8i8I", _ELEMENTS[tensor.dtype], len(tensor.shape), *(axes + [0] * _MOST_AXES))
        layout = ctypes.create_string_buffer(packed)
        made_by = "LiteRtCreateManagedTensorBufferFromRequirements"
        _do(library, made_by, environment, layout, needs, ctypes.byref(buffer))
        made[index] = buffer
    return made


def _do(library: Any, name: str, *arguments: Any) -> None:
    status = getattr(library, name)(*arguments)
    if status != 0:
        raise Refusal("%s answered %d" % (name, status))
