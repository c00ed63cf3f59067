"""Explanation of a run (`edgekd distill --explain`): loss shares of the gradient, and agreement with the teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from edgekd.records import Filed, Record

__all__ = ["ClassFollowed", "ExplanationRecord", "Following", "TermShare"]


class TermShare(Record):
    """Share of a loss in the length of the gradient on the student's weights."""

    name: str
    first: float  # on the last batch of its first epoch
    last: float  # on the last batch of its last epoch


class ClassFollowed(Record):
    """Agreement of a student with its teacher on the samples of one class."""

    label: str
    samples: int
    student: float  # share that is correct
    teacher: float
    agreement: float  # share on which both predict the same class


class Following(Record):
    """Agreement of a student, in PyTorch float32, with its teacher on validation samples, or on cells of a mask."""

    samples: int
    student: float  # top-1
    teacher: float
    agreement: float  # share of samples on which both predict the same class
    student_error: float  # expected calibration error, 15 bins (Guo et al. 2017)
    teacher_error: float
    classes: tuple[ClassFollowed, ...]
    of: Literal["samples", "cells"] = "samples"

    def lines(self, head: str = "") -> list[str]:
        """Format as text lines; ``head`` names the head where there are several."""
        named = f"{head} " if head else ""
        lines = [
            f"following  {named}agrees with the teacher on {self.agreement:.1%} of {self.samples} validation {self.of}",
            f"           right: student {self.student:.1%} (in PyTorch float32), teacher {self.teacher:.1%}",
            f"           calibration error: student {self.student_error:.3f}, teacher {self.teacher_error:.3f}",
            f"  {'class':<24}{self.of:>9}{'student':>9}{'teacher':>9}{'agree':>8}",
        ]
        return lines + [
            f"  {each.label[:24]:<24}{each.samples:>9}{each.student:>9.1%}{each.teacher:>9.1%}{each.agreement:>8.1%}"
            for each in self.classes
        ]


class ExplanationRecord(Filed):
    """Loss shares in the chosen finalist's training, and its student's agreement with the teacher."""

    schema_: Literal["edgekd.explanation/1"] = Field(default="edgekd.explanation/1", alias="schema")
    finalist: int
    terms: tuple[TermShare, ...]  # losses, or heads where there are several; empty where there was one alone
    following: Following | None  # None without a teacher, and where there are other heads than one of classification
    heads: Mapping[str, Following] = {}  # otherwise: heads that predict classes and have a teacher

    @property
    def followed(self) -> Mapping[str, Following]:
        """Agreement by head; the name of an only head is empty."""
        return {"": self.following} if self.following else self.heads

    def lines(self) -> list[str]:
        """Format as text lines."""
        lines = [f"loss       {'share of the gradient':<24}first    last"] if self.terms else []
        lines += [f"  {term.name:<33}{term.first:>6.1%}  {term.last:>6.1%}" for term in self.terms]
        for head, following in self.followed.items():
            lines += following.lines(head)
        if not self.followed:
            lines.append("following  not available: needs a teacher, and a head that predicts classes")
        return lines
