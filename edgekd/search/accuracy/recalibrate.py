"""BatchNorm recalibration after pruning: statistics are recomputed over training samples, no weight changes.

The statistics a pruned network inherits are those of the wider one, and its ranking by accuracy says little until they
are right (Li et al. 2020, EagleEye, arXiv 2007.02491).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from edgekd.errors import Interrupted, Problem
from edgekd.ir.space import Arch
from edgekd.records import Digest, Record, digest_json
from edgekd.stages import Stage, StageContext
from edgekd.students._protocol import Family, Pretrained, Student
from edgekd.tasks._protocol import TaskSpec
from edgekd.teachers.normalise import normalised

__all__ = ["Recalibrate", "recalibrated_first"]

_BATCH = 128


def recalibrated_first(recipe: Sequence[Stage], arch: Arch, family: Family, spec: TaskSpec) -> tuple[Stage, ...]:
    """Return the recipe behind a recalibration where this arch inherits the weights of a wider network."""
    whole = isinstance(family, Pretrained) and family.original(spec) == arch
    return tuple(recipe) if whole or not family.inherits else (Recalibrate(), *recipe)


class Recalibrate(Record):
    """Stage that averages BatchNorm statistics over ``samples`` training samples; no change without BatchNorm."""

    name: ClassVar[str] = "recalibrate"
    per_backend: ClassVar[bool] = False

    samples: PositiveInt = 512

    def check(self, student: Student, context: StageContext) -> Sequence[Problem]:  # noqa: ARG002  # the Protocol's
        """Return no problems: any student can be recalibrated."""
        return []

    def key(self, inputs: Digest) -> Digest:
        """Digest of the inputs' key and the number of samples."""
        return digest_json(["recalibrate/2", self.model_dump(mode="json"), inputs])

    def run(self, student: Student, context: StageContext) -> Student:
        """Return a copy with new statistics. Raises Interrupted."""
        module, spec = copy.deepcopy(student.module), student.task.input
        norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
        counted = [norm for norm in norms if norm.track_running_stats]
        batches = list(self._batches(context)) if counted else []
        if not batches:  # a variance needs two samples
            return student
        for norm in counted:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over all batches
            norm.train()
        with torch.no_grad():
            for batch in batches:
                if context.stop():
                    raise Interrupted("stopped while recalibrating", "run the same command again to go on")
                module(batch if spec.text is not None else normalised(batch, spec.mean, spec.std))
        for norm, old in zip(norms, _norms(student.module), strict=True):
            norm.momentum = old.momentum
        return student.but(module=module.eval())

    def _batches(self, context: StageContext) -> Iterator[Tensor]:
        train = context.task.split("train")
        inputs = (train if len(train) else context.task.split("calibration")).inputs
        order = np.random.default_rng(context.seed).permutation(len(inputs))[: self.samples]
        raw = torch.from_numpy(np.ascontiguousarray(inputs[np.sort(order)]))
        # of nearly equal length, because each counts the same in the average
        batches = torch.tensor_split(raw, max(1, math.ceil(len(raw) / _BATCH)))
        return (batch for batch in batches if len(batch) > 1)


def _norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
