"""Quantization, the recipe stage ``quantize``: folds BatchNorm and finds the encodings of one precision.

::

    recipe:
      - quantize: {precision: int8, calibration: percentile, samples: 256, keep_float: [head, "blocks.0.*"]}

It changes annotations and, for float16, rounds weights; float32 only folds. Nothing is trained, unless ``train: 10
epochs`` asks for quantization-aware training (``train: {epochs: 10, ...}`` with options of `distill`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, PositiveInt, field_validator

from edgekd.compress.quantization.calibrate import Method, calibrate
from edgekd.compress.quantization.precision_support import problems_with
from edgekd.compress.quantization.train import VERSION, problems_of, trained
from edgekd.distill.stage import Distill
from edgekd.errors import ConfigurationError, Interrupted, Problem
from edgekd.events import StageProgress
from edgekd.ir.numerics import Precision
from edgekd.records import Digest, Extended, digest_json
from edgekd.stages import FLOAT_WEIGHTS, StageContext
from edgekd.students._protocol import Student

__all__ = ["Quantize"]


class Quantize(Extended):
    """Options of `quantize`. Calibration samples come from the task's calibration split only."""

    name: ClassVar[str] = "quantize"
    added: ClassVar[frozenset[str]] = frozenset({"keep_float", "train", "weight_bits"})
    requires: ClassVar[frozenset[str]] = FLOAT_WEIGHTS
    removes: ClassVar[frozenset[str]] = FLOAT_WEIGHTS

    precision: Precision = Precision.INT8
    calibration: Method = "percentile"
    samples: PositiveInt = 256
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99  # of values inside the range, on each side
    keep_float: tuple[str, ...] = ()  # modules or operators that int8 leaves in float, by pattern
    weight_bits: Annotated[int, Field(ge=2, le=8)] | None = None  # 8; fewer are stored in 8, for int8 kernels
    train: Distill | None = None  # quantization-aware training after calibration; the float student is the teacher

    @field_validator("train", mode="before")
    @classmethod
    def _epochs_alone(cls, value: Any) -> Any:
        """Convert ``train: 10 epochs`` to ``train: {epochs: 10}``."""
        found = re.fullmatch(r"([1-9][0-9]*) epochs?", value) if isinstance(value, str) else None
        return {"epochs": int(found[1])} if found else value

    def check(self, student: Student, context: StageContext) -> Sequence[Problem]:
        """Return the problems: nothing to quantize, no calibration samples, options for another precision."""
        try:
            problems = list(problems_with(student, self.precision, context.backend, keep_float=self.keep_float))
        except ConfigurationError as error:
            return error.problems
        if self.precision.is_static and not len(context.task.split("calibration")):
            asked = f"quantize: {self.precision.value}"
            problems.append(Problem(f"{asked} needs calibration samples, and the task has none", "use dynamic-int8"))
        if self.keep_float and not self.precision.is_static:
            problems.append(
                Problem(f"quantize: keep_float is for int8; the precision is {self.precision.value}", "leave it out")
            )
        if self.weight_bits is not None and not self.precision.weights.is_integer:
            problems.append(
                Problem(f"quantize: {self.precision.value} has no integer weights for weight_bits", "leave it out")
            )
        if self.train is not None and not self.precision.is_static:
            problems.append(
                Problem(f"quantize: train is for int8; the precision is {self.precision.value}", "leave it out")
            )
        elif self.train is not None and not problems:
            problems += problems_of(student, self.train, context)
        return problems

    @property
    def quantizes_to(self) -> Precision:
        """The precision."""
        return self.precision

    def calibrating(self) -> Quantize:
        """Return the same stage without training."""
        return self.but(train=None)

    @property
    def passes(self) -> int:
        """Number of training epochs."""
        return self.train.passes if self.train is not None else 0

    def cut_to(self, share: float) -> Quantize:
        """Return the same stage with this share of its epochs of training."""
        return self.but(train=self.train.cut_to(share)) if self.train is not None else self

    def shortened(self, epochs: int) -> Quantize:
        """Return the same stage with at most ``epochs`` epochs of training."""
        return self.but(train=self.train.shortened(epochs)) if self.train is not None else self

    def key(self, inputs: Digest) -> Digest:
        """Return the identity of the result. ``inputs`` must cover backend and device, which restrict the encodings."""
        trained = [] if self.train is None else [VERSION, self.train.key(inputs)]
        few = [] if self.weight_bits is None else ["clipped"]  # weights of few bits were not always
        exact = ["zeros"] if self.calibration == "mse" else []  # were not always counted as exact
        return digest_json(["quantize/1", self.model_dump(mode="json"), inputs, *few, *exact, *trained])

    def run(self, student: Student, context: StageContext) -> Student:
        """Return the folded, annotated student. Takes about a second without training."""
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
            weight_bits=self.weight_bits or 8,
        )
        context.progress(StageProgress(self.name, 1, 1, self.precision.value))
        return result if self.train is None else trained(student, result, self.train, context, self.name)
