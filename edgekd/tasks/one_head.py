"""Single-head view of a multi-head task, to train and score a teacher for that head alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekd.errors import UnknownName
from edgekd.tasks._protocol import HeadSpec, MetricSpec, Rows, Score, Split, SplitName, Task, TaskSpec
from edgekd.tasks.metrics.heads import metric_name, score_heads
from edgekd.tasks.rows import has_label, label_rows
from edgekd.tasks.splits import digest_arrays

__all__ = ["OneHead"]


@dataclass(frozen=True)
class OneHead:
    """Single head of a task with several. Samples without its label are left out."""

    task: Task
    head: str

    @property
    def spec(self) -> TaskSpec:
        """The task's spec with that head alone. Raises UnknownName."""
        whole, own = self.task.spec, self._own
        return whole.but(
            name=f"{whole.name} {self.head}", head=own, more=(), metric=MetricSpec(name=metric_name([own]))
        )

    def split(self, name: SplitName) -> Split:
        """Return the labelled samples of a split."""
        whole, own = self.task.split(name), self._own
        labels = whole.labels if whole.labels.dtype.names is None else whole.labels[self.head]
        known = has_label(own, labels)
        inputs = whole.inputs if known.all() else whole.inputs[known]
        rows = label_rows([own], {self.head: np.ascontiguousarray(labels[known])})
        return Split(name, inputs, rows, digest_arrays(inputs, rows))

    def score(self, outputs: Rows, labels: Rows) -> Score:
        """Score by the head's own metric."""
        return score_heads([self._own], outputs, labels)

    @property
    def _own(self) -> HeadSpec:
        heads = {head.name: head for head in self.task.spec.heads}
        if self.head not in heads:
            raise UnknownName("head", self.head, heads)
        return heads[self.head]
