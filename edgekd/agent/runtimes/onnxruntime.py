"""ONNX Runtime on the CPU, called with inputs and outputs bound to memory of our own."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import onnxruntime as ort

from edgekd.agent.runtimes.base import Runtime, Tensor, TimedOperator, check_inputs, settled

__all__ = ["PROVIDERS", "OnnxRuntime", "open_runtime"]

PROVIDERS = ("cpu",)

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({name})": name for name in ("int8", "uint8", "int16", "int32", "int64")},
}


class OnnxRuntime(Runtime):
    """A session of its own, sequential, with as many threads as asked."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def load(self, path: str) -> None:
        self.session = ort.InferenceSession(path, self._options(), providers=["CPUExecutionProvider"])
        self.settled = settled([(node.name, _axes(node)) for node in self.session.get_inputs()], self.shapes)

    def _options(self) -> Any:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return options

    def prepare(self, inputs: Sequence[np.ndarray[Any, Any]]) -> None:
        tensors = self.inputs()
        check_inputs(tensors, inputs)
        binding = self.session.io_binding()
        self.values = [ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array)) for array in inputs]
        for tensor, value in zip(tensors, self.values):
            binding.bind_ortvalue_input(tensor.name, value)
        self.places: List[Any] = []
        for node in self.session.get_outputs():
            if all(isinstance(axis, int) for axis in node.shape) and node.type in _DTYPES:
                place = ort.OrtValue.ortvalue_from_shape_and_type(node.shape, np.dtype(_DTYPES[node.type]).type, "cpu")
                binding.bind_ortvalue_output(node.name, place)
                self.places.append(place)
            else:
                binding.bind_output(node.name, "cpu")
        self.binding = binding
        run, session = type(self.session).run_with_iobinding, self.session
        self.call = lambda: run(session, binding)

    def inputs(self) -> List[Tensor]:
        return [_tensor(node, shape) for node, shape in zip(self.session.get_inputs(), self.settled)]

    def outputs(self) -> List[Tensor]:
        return [_tensor(node, [axis or 1 for axis in _axes(node)]) for node in self.session.get_outputs()]

    def read(self) -> List[np.ndarray[Any, Any]]:
        return [np.array(value, copy=True) for value in self.binding.copy_outputs_to_cpu()]

    def profile(self, path: str, calls: int) -> List[TimedOperator]:
        kept = [np.array(value.numpy(), copy=True) for value in self.values]  # its memory goes with the value
        with tempfile.TemporaryDirectory() as folder:
            options = self._options()
            options.enable_profiling = True
            options.profile_file_prefix = os.path.join(folder, "profile")
            self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            self.prepare(kept)
            for _ in range(calls):
                self.call()
            with open(self.session.end_profiling(), encoding="utf-8") as stream:
                events = json.load(stream)
        times: Dict[str, List[Any]] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                name = event["name"][: -len("_kernel_time")]
                types = event["args"].get("output_type_shape") or [{}]
                entry = times.setdefault(name, [event["args"].get("op_name", ""), 0.0, next(iter(types[0]), "")])
                entry[1] += float(event["dur"])
        return [TimedOperator(name, kind, total / calls, precision) for name, (kind, total, precision) in times.items()]


def _axes(node: Any) -> List[Optional[int]]:
    return [axis if isinstance(axis, int) and axis > 0 else None for axis in node.shape]


def _tensor(node: Any, shape: Sequence[int]) -> Tensor:
    return Tensor(node.name, _DTYPES.get(node.type, node.type[len("tensor(") : -1]), tuple(shape))


def open_runtime(provider: str, threads: int) -> Runtime:
    """ONNX Runtime; its one provider here is ``cpu``."""
    del provider
    return OnnxRuntime(threads)
