"""Objective of one training: all losses on logits and on features, with their connectors, as one module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from edgekd.distill.heads.batches import Batched
from edgekd.distill.heads.objective import HeadsObjective
from edgekd.distill.losses._protocol import Loss, Site
from edgekd.distill.losses.combined import Combined
from edgekd.distill.losses.criterion import Batch, Criterion
from edgekd.students.points import LOGITS, Layout, Point

__all__ = ["Objective"]


class Objective(nn.Module):
    """Sum of all losses. Trained with the student; dropped with all its parameters at the end."""

    def __init__(
        self,
        loss: Combined,
        criteria: Sequence[Criterion] = (),
        sites: Sequence[Site] = (),
        layout: Layout | None = None,
        heads: HeadsObjective | None = None,
    ) -> None:
        super().__init__()
        self.loss, self.layout, self.heads = loss, layout, heads
        self.criteria = nn.ModuleList(criteria)
        self._sites = tuple(sites)
        self.move_to(0.0)

    @classmethod
    def of(cls, loss: Loss | Combined) -> Self:
        """Build an objective of losses on logits alone."""
        if isinstance(loss, Loss):
            loss = Combined(parts=((type(loss).__name__, loss if loss.weight else loss.but(weight=1.0)),))
        return cls(loss)

    @classmethod
    def built(
        cls,
        loss: Combined,
        sites: Sequence[Site],
        module: nn.Module,
        layout: Layout | None,
        seed: int,
        heads: HeadsObjective | None = None,
    ) -> Self:
        """Build an objective with new criteria; ``module`` is changed in place if a loss needs other student layers."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            criteria = [part.criterion(site) for (_, part), site in zip(loss.features, sites, strict=True)]
            for criterion in criteria:
                criterion.attach(module)
        return cls(loss, criteria, sites, layout, heads)

    @property
    def teacher_points(self) -> tuple[Point, ...]:
        """Points of the teacher whose activations are compared."""
        return tuple(dict.fromkeys(other for site in self._sites for _, other in site.pairs))

    @property
    def student_points(self) -> tuple[str, ...]:
        """Names of the student's points whose activations are compared."""
        return tuple(dict.fromkeys(own.name for site in self._sites for own, _ in site.pairs))

    def move_to(self, progress: float) -> None:
        """Set scheduled options to their values when a share ``progress`` (0 to 1) of the training is done."""
        self._now = self.loss.at(progress)
        self._weights = [loss.at(progress).weight for _, loss in self.loss.features]

    def detach_from(self, module: nn.Module) -> None:
        """Restore the layers of the arch in the trained network or a copy of it, in place."""
        for criterion in self.criteria:
            criterion.detach_from(module)  # type: ignore[operator]  # ModuleList is typed by nn.Module

    @property
    def changes_student(self) -> bool:
        """True if the network has other layers during the training."""
        return any(type(criterion).attach is not Criterion.attach for criterion in self.criteria)  # type: ignore[attr-defined]

    def forward(
        self,
        outputs: Batched,
        teacher_logits: Tensor | None,
        student_seen: Mapping[str, Tensor],
        teacher_seen: Mapping[str, Tensor],
        batch: Batch,
        targets: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        """Return the weighted batch means, scalars, named by `names`; their sum is the loss. Everything is float32.

        ``outputs`` and ``teacher_logits`` are logits (N, C); with several heads the raw outputs by name, the teacher's
        packed, and ``targets`` the labels of each head.
        """
        if isinstance(outputs, Tensor):
            terms = self._now.terms(outputs, teacher_logits, batch.labels)
            student_seen = {**student_seen, LOGITS: outputs}
        else:
            assert self.heads is not None
            assert targets is not None
            terms = list(self.heads(self._now, outputs, teacher_logits, targets))
        for criterion, site, weight in zip(self.criteria, self._sites, self._weights, strict=True):
            own = [student_seen[point.name] for point, _ in site.pairs]
            other = [teacher_seen[point.name] for _, point in site.pairs]
            terms.append(criterion(own, other, batch) * weight)
        return terms

    def names(self) -> list[str]:
        """Return the names of the current terms: losses on logits (or heads if there are several), then feature losses.

        Duplicate names are numbered.
        """
        on_logits = [name for name, loss in self._now.parts if isinstance(loss, Loss) and loss.weight]
        if self.heads is not None:
            on_logits = [head.name for head in self.heads.spec.heads]
        given = [*on_logits, *(name for name, _ in self.loss.features)]
        return [
            f"{name} {given[: at + 1].count(name)}" if given.count(name) > 1 else name for at, name in enumerate(given)
        ]
