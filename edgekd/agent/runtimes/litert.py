"""LiteRT (or tflite_runtime, or TensorFlow's own interpreter): XNNPACK, or the built-in kernels without it."""

from __future__ import annotations

import importlib
from typing import Any, Dict, List, Optional, Sequence, Set

import numpy as np

from edgekd.agent.runtimes.base import Placement, Refusal, Runtime, Tensor, TimedOperator, check_inputs, settled

__all__ = ["MODULES", "PROVIDERS", "LiteRt", "open_runtime"]

PROVIDERS = ("xnnpack", "builtin")

MODULES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow.lite.python.interpreter")
"""Where an interpreter is looked for, in this order."""


class LiteRt(Runtime):
    """An interpreter on a model."""

    def __init__(self, provider: str, threads: int) -> None:
        self.threads = threads
        self.module = _import_interpreter()
        resolvers = getattr(self.module, "OpResolverType", None)
        self.options: Dict[str, Any] = {}
        if provider == "builtin" and resolvers is not None:
            self.options["experimental_op_resolver_type"] = resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        self.provider = provider

    def load(self, path: str) -> None:
        self.interpreter = self.module.Interpreter(model_path=path, num_threads=self.threads, **self.options)
        details = self.interpreter.get_input_details()
        for detail, shape in zip(details, settled([(one["name"], _axes(one)) for one in details], self.shapes)):
            if tuple(detail["shape"]) != shape:
                self.interpreter.resize_tensor_input(detail["index"], shape)
        self.interpreter.allocate_tensors()

    def prepare(self, inputs: Sequence[np.ndarray[Any, Any]]) -> None:
        check_inputs(self.inputs(), inputs)
        for detail, array in zip(self.interpreter.get_input_details(), inputs):
            self.interpreter.set_tensor(detail["index"], array)
        self.call = self.interpreter.invoke

    def inputs(self) -> List[Tensor]:
        return [_tensor(detail) for detail in self.interpreter.get_input_details()]

    def outputs(self) -> List[Tensor]:
        return [_tensor(detail) for detail in self.interpreter.get_output_details()]

    def read(self) -> List[np.ndarray[Any, Any]]:
        return [self.interpreter.get_tensor(detail["index"]) for detail in self.interpreter.get_output_details()]

    def profile(self, path: str, calls: int) -> List[TimedOperator]:
        if self.provider != "xnnpack" or self.module.__name__ != MODULES[0]:
            return []
        if self.shapes:
            raise Refusal("operators are timed at the file's own shape only")
        from edgekd.agent.runtimes.litert_profiler import profile

        return profile(path, self.inputs(), self.outputs(), self.threads, calls)

    def placement(self) -> Optional[Placement]:
        """Operators that a delegate took: those between the inputs and the outputs of its nodes.

        The interpreter keeps listing operators that a delegate replaced, so the graph itself has to tell.
        """
        listed = getattr(self.interpreter, "_get_ops_details", None)
        if listed is None:
            return None
        nodes = listed()
        delegates = [node for node in nodes if node["op_name"] == "DELEGATE"]
        plain = [node for node in nodes if node["op_name"] != "DELEGATE"]
        maker = {int(tensor): place for place, node in enumerate(plain) for tensor in node["outputs"]}
        taken: Set[int] = set()
        for delegate in delegates:
            outside = {int(tensor) for tensor in delegate["inputs"]}
            ahead = [int(tensor) for tensor in delegate["outputs"]]
            while ahead:
                tensor = ahead.pop()
                if tensor in outside or tensor not in maker or maker[tensor] in taken:
                    continue
                taken.add(maker[tensor])
                ahead.extend(int(tensor) for tensor in plain[maker[tensor]]["inputs"])
        left = {node["op_name"] for place, node in enumerate(plain) if place not in taken}
        return Placement(len(plain), len(taken), len(delegates), tuple(sorted(left)))


def _import_interpreter() -> Any:
    for name in MODULES:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            last = error
    raise last


def _axes(detail: Dict[str, Any]) -> List[Optional[int]]:
    own = detail.get("shape_signature", ())  # none of an old file, whose shape is fixed
    return [None if axis < 0 else int(axis) for axis in (own if len(own) else detail["shape"])]


def _tensor(detail: Dict[str, Any]) -> Tensor:
    quantization = detail["quantization_parameters"]
    return Tensor(
        detail["name"],
        np.dtype(detail["dtype"]).name,
        tuple(int(axis) for axis in detail["shape"]),
        tuple(float(scale) for scale in quantization["scales"]),
        tuple(int(zero) for zero in quantization["zero_points"]),
        int(quantization["quantized_dimension"]),
    )


def open_runtime(provider: str, threads: int) -> Runtime:
    """LiteRT with ``xnnpack`` (its default) or ``builtin`` (no delegate)."""
    return LiteRt(provider, threads)
