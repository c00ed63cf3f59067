"""The recipe's step ``quantize``: fold BatchNorm and find the encodings of one precision.

::

    recipe:
      - quantize: {precision: int8, calibration: percentile, samples: 256, keep_float: [head, "blocks.0.*"]}

It changes annotations and, for float16, rounds weights. Nothing is trained. float32 only folds. dynamic-int8 stores
weights in 8 bits; LiteRT then quantizes activations at run time, ONNX Runtime and OpenVINO compute in float.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, PositiveInt

from edgekd.artefacts import Precision
from edgekd.compress.quantization.calibrate import Method, calibrate
from edgekd.compress.quantization.ladder import problems_with
from edgekd.errors import ConfigurationError, Interrupted, Problem
from edgekd.events import StageProgress
from edgekd.records import Digest, Extended, digest_json
from edgekd.stages import StageContext
from edgekd.students._protocol import Student

__all__ = ["Quantize"]


class Quantize(Extended):
    """Post-training quantization. Samples come from the task's calibration split alone."""

    name: ClassVar[str] = "quantize"
    added: ClassVar[frozenset[str]] = frozenset({"keep_float"})

    precision: Precision = Precision.INT8
    calibration: Method = "percentile"
    samples: PositiveInt = 256
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99  # of values inside the range, on each side
    keep_float: tuple[str, ...] = ()  # modules or operators that int8 leaves in float, by pattern

    def check(self, student: Student, context: StageContext) -> Sequence[Problem]:
        """A student with nothing to quantize, a calibration split that is empty."""
        try:
            problems = list(problems_with(student, self.precision, context.backend, keep_float=self.keep_float))
        except ConfigurationError as error:
            return error.problems
        if self.precision is Precision.INT8 and not len(context.task.split("calibration")):
            problems.append(
                Problem("quantize: int8 needs calibration samples, and the task has none", "use dynamic-int8")
            )
        if self.keep_float and self.precision is not Precision.INT8:
            problems.append(
                Problem(f"quantize: keep_float is for int8; the precision is {self.precision.value}", "leave it out")
            )
        return problems

    def key(self, inputs: Digest) -> Digest:
        """Identity of the result. ``inputs`` must cover backend and device: they narrow the encodings."""
        return digest_json(["quantize/1", self.model_dump(mode="json"), inputs])

    def run(self, student: Student, context: StageContext) -> Student:
        """The folded, annotated student. Takes about a second."""
        if context.stop():
            raise Interrupted("stopped before quantization", "run the same command again to go on")
        context.progress(StageProgress(self.name, 0, 1, self.precision.value))
        inputs = context.task.split("calibration").inputs
        order = np.random.default_rng(context.seed).permutation(len(inputs))[: self.samples]
        result = calibrate(
            student,
            inputs[np.sort(order)],
            self.precision,
            self.calibration,
            context.device,
            context.backend,
            percentile=self.percentile,
            keep_float=self.keep_float,
        )
        context.progress(StageProgress(self.name, 1, 1, self.precision.value))
        return result
