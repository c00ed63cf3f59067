"""`tflite`: any model in a .tflite file, run by LiteRT on the CPU, in this process.

``input`` states which real numbers the file takes, ``normalised`` (the default) or ``raw``; for an integer input they
are quantized with its scale and zero point, and integer outputs are dequantized with theirs. So a file that edgekd
exported with a uint8 input, whose scale includes the normalisation, takes ``normalised``.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PrivateAttr

from edgekd.errors import ConfigurationError
from edgekd.tasks._protocol import TaskSpec
from edgekd.teachers.model_file import ModelFile, check_shape
from edgekd.teachers.tflite_graph import TfliteGraph

__all__ = ["TfliteTeacher"]

_SOFTMAX_SCALE = 1 / 256  # of SOFTMAX and LOGISTIC by TFLite's quantization specification


class TfliteTeacher(ModelFile):
    """Options of `tflite`. ``output`` names the logits if the file has several outputs."""

    output: str | None = None
    _graph: TfliteGraph | None = PrivateAttr(None)

    def bound(self, spec: TaskSpec) -> Self:
        """Return the teacher with the task's normalisation.

        Raises ConfigurationError if images don't fit an integer input.
        """
        bound = super().bound(spec)
        bound._check_range(spec)
        return bound

    def _run(self, fed: NDArray[np.float32]) -> NDArray[Any]:
        graph = self._opened()
        check_shape(self, graph.takes, fed.shape[1:])
        if graph.output.integer and self.answers == "logits":
            first = graph.output.least == 0.0  # the smallest integer encodes 0, the largest nearly 1
            if first and abs(graph.output.scale - _SOFTMAX_SCALE) < 1e-9:
                raise ConfigurationError.one(
                    f"teacher `{self.name}` outputs probabilities: its output has the scale of a softmax",
                    "write `answers: probabilities`",
                )
        answers = graph(fed)
        # of a probability below half a step nothing more is known, and its logarithm must not say more
        floor = graph.output.scale / 2 if graph.output.integer and self.answers == "probabilities" else None
        return answers if floor is None else np.maximum(answers, floor)

    def _opened(self) -> TfliteGraph:
        if self._graph is None:
            self._graph = TfliteGraph(self.file, self.output, pixels=self.input == "raw")
        return self._graph

    def _check_range(self, spec: TaskSpec) -> None:
        """Raise ConfigurationError if images exceed or hardly use an integer input's range: a wrong ``input``."""
        entry = self._opened().input
        if not entry.integer:
            return
        low, high = (float(value) for value in spec.input.raw_range)
        if self.input == "normalised" and self.mean is not None and self.std is not None:
            pairs = list(zip(np.resize(self.mean, 3), np.resize(self.std, 3), strict=True))
            low, high = min((low - m) / s for m, s in pairs), max((high - m) / s for m, s in pairs)
        seen = min(high, entry.most) - max(low, entry.least)
        if seen >= (high - low) / 2 and high - low >= (entry.most - entry.least) / 16:
            return
        raise ConfigurationError.one(
            f"teacher `{self.name}` takes values from {entry.least:.4g} to {entry.most:.4g}, "
            f"and `input: {self.input}` gives it {low:.4g} to {high:.4g}",
            f"write `input: {'raw' if self.input == 'normalised' else 'normalised'}`, or its mean and std in raw units",
        )

    def _feeding(self) -> Any:
        return [*super()._feeding(), self.output]
