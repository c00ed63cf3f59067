"""Drives ONNX's reference evaluator on a device: Python 3.8, numpy, the runtime, and of edgekd its agent alone."""

from __future__ import annotations

from typing import Any, List, Optional, Sequence

import numpy as np
from onnx.helper import tensor_dtype_to_np_dtype
from onnx.reference import ReferenceEvaluator

from edgekd.agent.runtimes.base import Runtime, Tensor, TimedOperator, check_inputs, settled

PROVIDERS = ("numpy",)


class Reference(Runtime):
    """One evaluator on one model; numpy chooses its own threads."""

    def load(self, path: str) -> None:
        self.evaluator = ReferenceEvaluator(path)
        entries = zip(self.evaluator.input_names, self.evaluator.input_types)
        self.settled = settled([(name, _axes(kind)) for name, kind in entries], self.shapes)

    def prepare(self, inputs: Sequence[np.ndarray[Any, Any]]) -> None:
        check_inputs(self.inputs(), inputs)
        fed = dict(zip(self.evaluator.input_names, inputs))

        def call() -> None:
            self.answers = self.evaluator.run(None, fed)

        self.call = call

    def inputs(self) -> List[Tensor]:
        entries = zip(self.evaluator.input_names, self.evaluator.input_types, self.settled)
        return [Tensor(name, _dtype(kind), shape) for name, kind, shape in entries]

    def outputs(self) -> List[Tensor]:
        entries = zip(self.evaluator.output_names, self.evaluator.output_types)
        return [Tensor(name, _dtype(kind), tuple(axis or 1 for axis in _axes(kind))) for name, kind in entries]

    def read(self) -> List[np.ndarray[Any, Any]]:
        return [np.array(answer, copy=True) for answer in self.answers]

    def profile(self, path: str, calls: int) -> List[TimedOperator]:
        del path, calls
        return []


def _axes(kind: Any) -> List[Optional[int]]:
    return [axis.dim_value or None for axis in kind.tensor_type.shape.dim]


def _dtype(kind: Any) -> str:
    return str(np.dtype(tensor_dtype_to_np_dtype(kind.tensor_type.elem_type)).name)


def open_runtime(provider: str, threads: int) -> Runtime:
    """The evaluator has one provider and no threads of its own."""
    del provider, threads
    return Reference()
