"""Cross-entropy with the labels, optionally with label smoothing (Szegedy et al. 2016, arXiv 1512.00567, section 7).

-sum_c q_c log softmax(z)_c,   q = (1 - e) onehot(y) + e / C

For a task with other heads than one of classification, it stands for each head's own loss on labels (`distill/heads`):
binary cross-entropy for multilabel, a distance for regression.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from edgekd.distill.losses._protocol import Loss

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CrossEntropy"]


class CrossEntropy(Loss):
    """Options of `ce`. Needs no teacher. Without a weight it takes what the other losses leave of 1."""

    needs_teacher: ClassVar[bool] = False
    paper: ClassVar[str] = "Szegedy 2016, Rethinking the Inception architecture, CVPR (smoothing)"
    use: ClassVar[str] = "the labels themselves: beside any other loss, or alone"

    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0  # e above

    def value(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar batch mean. Logits (N, C); labels (N,) int64; the teacher is not used."""
        from torch.nn.functional import cross_entropy

        del teacher_logits
        return cross_entropy(student_logits, labels, label_smoothing=self.label_smoothing)
