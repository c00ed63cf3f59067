"""`ArtefactBuilder` with untrained weights: a candidate's file is as fast on a device as the trained one."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgekd.artefacts import Backend, Format
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.devices._protocol import Fingerprint
from edgekd.errors import ConfigurationError, Diverged
from edgekd.export._protocol import ConversionOutcome, ConversionResult, ExportOptions
from edgekd.export.converter import Converter
from edgekd.export.facts import facts_of
from edgekd.ir.backends import formats_of
from edgekd.ir.plan import Candidate
from edgekd.ir.space import Arch
from edgekd.search.recipe import kept_float
from edgekd.store.records import RunHeader
from edgekd.students._protocol import Family, Student
from edgekd.students.fold import folded
from edgekd.students.student import new_student, save_student
from edgekd.tasks._protocol import Task

if TYPE_CHECKING:
    from edgekd.project import Project

__all__ = ["UntrainedBuilder", "native_format"]

_CALIBRATION_SAMPLES = 32  # ranges have no influence on time


def native_format(backend: Backend) -> Format:
    """Format that a backend reads best."""
    return formats_of(backend)[0]


@dataclass(frozen=True)
class UntrainedBuilder:
    """Builds, calibrates and converts. The seed fixes the weights, and so the file."""

    task: Task
    family: Family
    converter: Converter
    options: ExportOptions
    fingerprint: Fingerprint
    seed: int
    header: RunHeader | None = None  # its facts go into the file, so that it is as large as a finalist's
    keep_float: tuple[str, ...] = ()  # what the recipe's int8 leaves in float
    _kept: dict[Arch, Student] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, project: Project, converter: Converter, header: RunHeader) -> Self:
        """Builder for a run's trials: operators that the recipe's int8 leaves in float stay in float here too."""
        kept = kept_float(project.recipe)
        return cls(
            project.task, project.family, converter, project.export, header.fingerprint, header.seed, header, kept
        )

    def make(self, candidate: Candidate, path: Path) -> ConversionResult:
        """Write the file at ``path`` with the format's suffix. A refused precision is an outcome."""
        if candidate.backend is None:
            raise ValueError(f"{candidate} has no backend to be made for")
        inputs: NDArray[np.generic] = np.empty((0, *self.task.spec.input.shape))
        if candidate.plan.precision.is_static:
            inputs = self.task.split("calibration").inputs[:_CALIBRATION_SAMPLES]
        student = self._student(candidate.arch)
        try:
            student = calibrate(
                self._folded(student),
                inputs,
                candidate.plan.precision,
                "minmax",
                self.fingerprint,
                candidate.backend,
                keep_float=self.keep_float,
            )
        except (ConfigurationError, Diverged) as error:
            return ConversionResult(outcome=ConversionOutcome.REFUSED, detail=error.message.splitlines()[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        save_student(student, path.parent / "student")
        wanted = native_format(candidate.backend)
        facts = facts_of(self.header, candidate, self.options, wanted) if self.header is not None else {}
        return self.converter.convert(
            path.parent / "student",
            wanted,
            self.options,
            candidate.backend,
            self.fingerprint,
            path.with_suffix(wanted.suffix),
            facts,
        )

    def _student(self, arch: Arch) -> Student:
        """Return the student of an arch; a kept one is folded already."""
        if arch in self._kept:
            return self._kept[arch]
        student = new_student(self.family, arch, self.task.spec, self.seed)
        return student if self.family.inherits else student.but(module=_as_if_trained(student.module, self.seed))

    def _folded(self, student: Student) -> Student:
        """Fold a student once: it is kept for the next candidate, which often has the same arch."""
        if student.arch not in self._kept:
            self._kept.clear()
            self._kept[student.arch] = folded(student)
        return self._kept[student.arch]


def _as_if_trained(module: nn.Module, seed: int) -> nn.Module:
    """Return a copy without the zeros and ones of fresh biases and statistics: converters drop or share equal
    constants.
    """
    generator = torch.Generator().manual_seed(seed)
    module = copy.deepcopy(module)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
    return module
