"""OpenVINO on the CPU: one stream, synchronous, and float32 where float32 is written.

Without the precision hint OpenVINO computes float models in bf16 on some CPUs, and says nothing.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import openvino as ov

from edgekd.agent.runtimes.base import Runtime, Tensor, TimedOperator, check_inputs, settled

__all__ = ["PROVIDERS", "OpenVino", "computed_in", "open_runtime"]

PROVIDERS = ("cpu",)


class OpenVino(Runtime):
    """A compiled model with one request. The CPU plugin counts as part of the runtime, not of the model."""

    def __init__(self, threads: int) -> None:
        self.core = ov.Core()
        self.core.get_property("CPU", "FULL_DEVICE_NAME")  # loads the plugin
        self.options: Dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",  # unless the file says otherwise
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(threads),
        }

    def load(self, path: str) -> None:
        self._compile(path, self.options)

    def _compile(self, path: str, options: Dict[str, Any]) -> None:
        model = self.core.read_model(path)
        options = dict(options, INFERENCE_PRECISION_HINT=computed_in(model))
        shapes = settled([(_name(port), _axes(port)) for port in model.inputs], self.shapes)
        if model.is_dynamic():
            model.reshape(dict(zip(model.inputs, map(list, shapes))))
        self.compiled = self.core.compile_model(model, "CPU", options)
        self.request = self.compiled.create_infer_request()

    def prepare(self, inputs: Sequence[np.ndarray[Any, Any]]) -> None:
        check_inputs(self.inputs(), inputs)
        for place, array in zip(self.request.input_tensors, inputs):
            place.data[...] = array
        infer, request = type(self.request).infer, self.request
        self.call = lambda: infer(request, share_outputs=True)
        self.clock_us = lambda: float(request.latency) * 1e3

    def inputs(self) -> List[Tensor]:
        return [_tensor(port) for port in self.compiled.inputs]

    def outputs(self) -> List[Tensor]:
        return [_tensor(port) for port in self.compiled.outputs]

    def read(self) -> List[np.ndarray[Any, Any]]:
        return [np.array(tensor.data, copy=True) for tensor in self.request.output_tensors]

    def profile(self, path: str, calls: int) -> List[TimedOperator]:
        kept = [np.array(tensor.data, copy=True) for tensor in self.request.input_tensors]
        self._compile(path, dict(self.options, PERF_COUNT=True))
        self.prepare(kept)
        times: Dict[str, List[Any]] = {}
        for _ in range(calls):
            self.call()
            for node in self.request.get_profiling_info():
                if node.status.name == "EXECUTED":
                    entry = times.setdefault(node.node_name, [node.exec_type or node.node_type, 0.0])
                    entry[1] += node.real_time.total_seconds() * 1e6
        return [
            TimedOperator(name, kind, total / calls, kind.rsplit("_", 1)[-1]) for name, (kind, total) in times.items()
        ]


def computed_in(model: Any) -> str:
    """Type of floats that a model is to be computed in: as its file says, or float32."""
    said = ["runtime_options", "INFERENCE_PRECISION_HINT"]
    return str(model.get_rt_info(said).astype(str)) if model.has_rt_info(said) else "f32"


def _name(port: Any) -> str:
    return str(port.any_name) if port.names else ""


def _axes(port: Any) -> List[Optional[int]]:
    return [None if axis.is_dynamic else axis.get_length() for axis in port.get_partial_shape()]


def _tensor(port: Any) -> Tensor:
    shape = tuple(axis or 1 for axis in _axes(port))
    return Tensor(_name(port), np.dtype(port.element_type.to_dtype()).name, shape)


def open_runtime(provider: str, threads: int) -> Runtime:
    """OpenVINO; its one provider here is ``cpu``."""
    del provider
    return OpenVino(threads)
