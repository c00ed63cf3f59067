"""What `edgekd distill --explain` writes to a run: what each loss did, and how the student follows its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from edgekd.records import Filed, Record

__all__ = ["ClassFollowed", "ExplanationRecord", "Following", "TermShare"]


class TermShare(Record):
    """What a loss contributed: its share of the gradient's length on the student's weights."""

    name: str
    first: float  # on the last batch of its first epoch
    last: float  # on that of its last


class ClassFollowed(Record):
    """How a student follows its teacher on the samples of one class."""

    label: str
    samples: int
    student: float  # share that is right
    teacher: float
    agreement: float  # share on which both say the same


class Following(Record):
    """How closely a student, in PyTorch float32, follows its teacher on validation samples, or on cells of a mask."""

    samples: int
    student: float  # top-1
    teacher: float
    agreement: float  # share of samples on which both say the same
    student_error: float  # expected calibration error, 15 bins (Guo et al. 2017)
    teacher_error: float
    classes: tuple[ClassFollowed, ...]
    of: Literal["samples", "cells"] = "samples"

    def lines(self, head: str = "") -> list[str]:
        """As a person reads it; ``head`` where there are several."""
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
    """What each loss did in the chosen finalist's training, and how its student follows the teacher."""

    schema_: Literal["edgekd.explanation/1"] = Field(default="edgekd.explanation/1", alias="schema")
    finalist: int
    terms: tuple[TermShare, ...]  # losses, or heads where there are several; empty where there was one alone
    following: Following | None  # None without a teacher, and where there are other heads than one of classification
    heads: Mapping[str, Following] = {}  # then: those heads that tell classes, where they have a teacher

    @property
    def followed(self) -> Mapping[str, Following]:
        """By head; the name of the only one is empty."""
        return {"": self.following} if self.following else self.heads

    def lines(self) -> list[str]:
        """As a person reads it."""
        lines = [f"loss       {'share of the gradient':<24}first    last"] if self.terms else []
        lines += [f"  {term.name:<33}{term.first:>6.1%}  {term.last:>6.1%}" for term in self.terms]
        for head, following in self.followed.items():
            lines += following.lines(head)
        if not self.followed:
            lines.append("following  not told: it takes a teacher, and a head that tells classes")
        return lines
