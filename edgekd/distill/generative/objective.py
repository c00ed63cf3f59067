"""Objective of a generator: presets of term weights, after three papers and a combination of them.

``dafl``: Chen et al. 2019, "Data-free learning of student networks" (ICCV, arXiv 1904.01186). ``dfad``: Fang et al.
2019, "Data-free adversarial distillation" (arXiv 1912.11006). Both with the BatchNorm statistics of Yin et al. 2020,
"Dreaming to distill" (CVPR, arXiv 1912.08795), if ``bn`` is above 0. ``combined``: confident and balanced classes from
DAFL, a search for disagreement from DFAD, BatchNorm statistics, and a bank of images: the ingredients of CMI (Fang et
al. 2021, arXiv 2105.08584) and "Up to 100x faster data-free knowledge distillation" (Fang et al. 2022, AAAI, arXiv
2112.06253), without the contrastive loss of the first and the meta-learning of the second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeFloat

from edgekd.records import Record

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PRESETS", "Method", "Term", "TermWeights"]

Method = Literal["combined", "dafl", "dfad"]
Term = Literal["one_hot", "activation", "balance", "distance", "disagreement", "bn"]


class TermWeights(Record):
    """Weights of the generator's terms (terms.py, statistics.py)."""

    one_hot: NonNegativeFloat = 0.0
    activation: NonNegativeFloat = 0.0
    balance: NonNegativeFloat = 0.0
    distance: NonNegativeFloat = 0.0
    disagreement: NonNegativeFloat = 0.0
    bn: NonNegativeFloat = 0.0

    @property
    def asks_student(self) -> bool:
        """True if a term needs the student's logits."""
        return self.distance > 0 or self.disagreement > 0

    def __call__(
        self, teacher: Tensor, student: Tensor | None, features: Tensor | None, statistics: Tensor | None
    ) -> Tensor:
        """Return the weighted sum, a scalar.

        Logits (N, C), features (N, D); inputs of terms without weight may be None.
        """
        from edgekd.distill.generative import terms

        total = 0.0 * teacher.sum()
        if self.one_hot:
            total = total + self.one_hot * terms.one_hot(teacher)
        if self.balance:
            total = total + self.balance * terms.balance(teacher)
        if self.activation and features is not None:
            total = total + self.activation * terms.activation(features)
        if self.distance and student is not None:
            total = total - self.distance * terms.distance(student, teacher)
        if self.disagreement and student is not None:
            total = total - self.disagreement * terms.disagreement(student, teacher)
        if self.bn and statistics is not None:
            total = total + self.bn * statistics
        return total


PRESETS: dict[Method, TermWeights] = {
    "combined": TermWeights(one_hot=0.5, balance=5.0, disagreement=1.0, bn=1.0),
    "dafl": TermWeights(one_hot=1.0, activation=0.1, balance=5.0),
    "dfad": TermWeights(distance=1.0),
}
