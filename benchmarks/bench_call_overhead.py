"""What the measuring loop adds to a runtime's own call: timed call by call, minus the same call in a bare loop.

Rounds of both alternate in one process; each side's figure is its best round, since anything else that runs on the
machine can only add. The null model's figure is the loop's own cost. Run: python benchmarks/bench_call_overhead.py
[MODEL ...] (default: a small ONNX model on ONNX Runtime and OpenVINO). Ten seconds.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekd.agent.fingerprint import fingerprint
from edgekd.agent.runtimes import open_runtime
from edgekd.agent.runtimes.base import made_up
from edgekd.agent.timing import quantile, run_closed, warm_up
from edgekd.ir.backends import asked_of_agent

BACKENDS = {
    ".onnx": (("onnxruntime", "cpu"), ("openvino", "cpu")),
    ".tflite": (("litert", "xnnpack"), ("openvino", "cpu")),
    ".null": (("null", "none"),),
}
BATCHES, CALLS = 1000, 10
RESULT = Path(__file__).parent / "results" / "call_overhead.json"


def small_model(folder: Path) -> Path:
    """One 3x3 convolution on 3x32x32, global pooling."""
    weights = np.random.default_rng(0).standard_normal((16, 3, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("GlobalAveragePool", ["c"], ["y"]),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 1, 1])],
        [numpy_helper.from_array(weights, "w")],
    )
    path = folder / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def bare_call(runtime: Any, name: str) -> Callable[[], object]:
    """The runtime's public call, as its documentation writes it."""
    if name == "litert":
        return runtime.interpreter.invoke
    if name == "onnxruntime":
        return lambda: runtime.session.run_with_iobinding(runtime.binding)
    if name == "openvino":
        return lambda: runtime.request.infer(share_outputs=True)
    return lambda: None


def bare_us(call: Callable[[], object], calls: int) -> float:
    """Mean time of a call in a loop that does nothing else."""
    turns = range(calls)
    begin = time.perf_counter_ns()
    for _ in turns:
        call()
    return (time.perf_counter_ns() - begin) / calls / 1e3


def overhead(path: Path, name: str, provider: str) -> dict[str, Any]:
    """Both sides on one model."""
    runtime = open_runtime(name, provider, 1)
    runtime.load(str(path))
    runtime.prepare(made_up(runtime.inputs(), 0))
    warm_up(runtime.call, 50.0)
    bare, timed = [], []
    plain = bare_call(runtime, name)
    for _ in range(BATCHES):
        bare.append(bare_us(plain, CALLS))
        done = run_closed(runtime.call, runtime.clock_us, 0.0, CALLS)
        timed.append(sum(done.calls_ns) / len(done.calls_ns) / 1e3)
    low_bare, low_timed = (quantile(sorted(side), 0.05) for side in (bare, timed))
    return {
        "model": path.name,
        "backend": f"{name}/{provider}",
        "bare_us": low_bare,
        "timed_us": low_timed,
        "added_us": low_timed - low_bare,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        null = Path(folder) / "nothing.null"
        null.write_text("null")
        models = [null, *(arguments.models or [small_model(Path(folder))])]
        cells = [overhead(path, *backend) for path in models for backend in BACKENDS[path.suffix]]
    print(f"{'model':<28} {'backend':<18} {'bare us':>9} {'timed us':>9} {'added us':>9}")
    for cell in cells:
        print(
            f"{cell['model']:<28} {cell['backend']:<18} {cell['bare_us']:>9.2f} {cell['timed_us']:>9.2f} "
            f"{cell['added_us']:>9.2f}"
        )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(
        json.dumps(
            {"machine": fingerprint(asked_of_agent()), "python": platform.python_version(), "cells": cells}, indent=1
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
