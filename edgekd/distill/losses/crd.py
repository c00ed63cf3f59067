"""Contrastive representation distillation (Tian, Krishnan & Isola 2020, "Contrastive representation distillation",
ICLR, arXiv 1910.10699, equation 18):

    h(t, s) = exp(t . s / T) / (exp(t . s / T) + k / M)
    loss    = -mean over i of [ log h(t_i, s_i) + sum over k negatives j of log(1 - h(t_j, s_i)) ]   + t and s swapped

s and t are linear embeddings of both networks' vectors (N, C), or of maps averaged over the image, with ``dimension``
numbers and length 1; M is the number of training samples. Positives and negatives come from a memory bank of the other
network: one entry for each sample, updated by a moving average. As in the authors' code, exp is divided by a constant
Z, M times its mean over the first batch; M then cancels out: k / M becomes k times that mean. Both directions are
summed; the mean is over the batch and over pairs of points.

The authors draw other negatives for each sample of a batch. Here a batch shares one draw (as in MoCo, He et al. 2020,
CVPR), which makes it one matrix product, at a twentieth of the time; a sample that is its own negative is left out. The
authors use 16,384 negatives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from edgekd.distill.losses._protocol import Choice, FeatureLoss, Site
from edgekd.distill.losses.criterion import Batch, Criterion
from edgekd.students.points import Point
from edgekd.units import Size, format_bytes

__all__ = ["CRD"]


class CRD(FeatureLoss):
    """Options of `crd`. Maps or vectors; a map may be paired with a vector."""

    mixes: ClassVar[bool] = True
    paper: ClassVar[str] = "Tian 2020, Contrastive representation distillation, ICLR"
    use: ClassVar[str] = "student and teacher of unlike design, and training for long; add kd to it"

    weight: NonNegativeFloat = 0.8
    points: Choice = "penultimate"
    dimension: PositiveInt = 128
    negatives: PositiveInt = 1024  # k above; at most all other samples
    temperature: PositiveFloat = 0.07
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5  # share of the old entry that a bank keeps
    bank: Size = Size.parse("512 MiB")  # largest size of the banks, in memory and in each checkpoint

    def problem(self, site: Site) -> str:
        """Return why the loss can't be used, also if the memory banks would be too large."""
        size = len(site.pairs) * 2 * site.samples * self.dimension * 4
        if size > self.bank:
            return (
                f"its memory banks would take {format_bytes(size)} for {site.samples:,} samples, above `bank` "
                f"({self.bank}): lower `dimension` (it is {self.dimension}), or raise `bank`"
            )
        return super().problem(site)

    def criterion(self, site: Site) -> Criterion:
        """Return two embeddings and two memory banks for each pair."""
        return _Contrasts(_Contrast(self, student, teacher, site.samples) for student, teacher in site.pairs)


class _Contrasts(Criterion):
    def __init__(self, contrasts: Iterable[_Contrast]) -> None:
        super().__init__()
        self.contrasts = nn.ModuleList(contrasts)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return the mean over the pairs.

        In training mode negatives come from torch's global generator, else they are fixed.
        """
        terms = [
            contrast(own, target, batch.indices)
            for contrast, own, target in zip(self.contrasts, student, teacher, strict=True)
        ]
        total: Tensor = sum(terms) / len(terms)
        return total


class _Contrast(nn.Module):
    """Contrastive loss of one pair of points."""

    student_bank: Tensor  # (samples, dimension)
    teacher_bank: Tensor
    means: Tensor  # (2,): of exp over the first batch, the student's embeddings first; 0 before it

    def __init__(self, options: CRD, student: Point, teacher: Point, samples: int) -> None:
        super().__init__()
        self.options = options
        self.embed_student = nn.Linear(student.shape[0], options.dimension)
        self.embed_teacher = nn.Linear(teacher.shape[0], options.dimension)
        bound = (3.0 / options.dimension) ** 0.5  # entries of length about 1
        for name in ("student_bank", "teacher_bank"):
            self.register_buffer(name, torch.empty(samples, options.dimension).uniform_(-bound, bound))
        self.register_buffer("means", torch.zeros(2))

    def forward(self, own: Tensor, target: Tensor, indices: Tensor) -> Tensor:
        student = functional.normalize(self.embed_student(_vector(own)), dim=1)
        teacher = functional.normalize(self.embed_teacher(_vector(target)), dim=1)
        negatives = self._negatives(indices.device)
        total = self._nce(student, self.teacher_bank, self.means[0], indices, negatives)
        total = total + self._nce(teacher, self.student_bank, self.means[1], indices, negatives)
        if self.training:
            self._remember(self.student_bank, student, indices)
            self._remember(self.teacher_bank, teacher, indices)
        return total

    def _negatives(self, device: torch.device) -> Tensor:
        """Return (k,) samples: random in training mode, else evenly spread over the training split."""
        samples = len(self.student_bank)
        count = max(1, min(self.options.negatives, samples - 1))
        if self.training:
            return torch.randint(samples, (count,), device=device)
        return torch.arange(count, device=device) * samples // count

    def _nce(self, anchors: Tensor, bank: Tensor, mean: Tensor, indices: Tensor, negatives: Tensor) -> Tensor:
        positive = (anchors * bank[indices]).sum(1, keepdim=True) / self.options.temperature
        against = anchors @ bank[negatives].T / self.options.temperature
        against = against.masked_fill(negatives == indices[:, None], -torch.inf)
        with torch.no_grad():
            fresh = torch.cat([positive, against], dim=1).exp().mean()
            first = torch.where(mean > 0, mean, fresh)  # no branch: the host need not wait for the device
            if self.training:
                mean.copy_(first)
            shift = (len(negatives) * first).log()
        likely = functional.logsigmoid(positive - shift).sum(1) + functional.logsigmoid(shift - against).sum(1)
        return -likely.mean()

    @torch.no_grad()
    def _remember(self, bank: Tensor, seen: Tensor, indices: Tensor) -> None:
        bank[indices] = functional.normalize(torch.lerp(seen, bank[indices], self.options.momentum), dim=1)


def _vector(features: Tensor) -> Tensor:
    return features.mean((2, 3)) if features.ndim == 4 else features
