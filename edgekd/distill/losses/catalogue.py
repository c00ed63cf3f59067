"""Catalogue of losses for `edgekd losses`: paper, requirements and use of each."""

from __future__ import annotations

import textwrap
from typing import Any, Literal

from pydantic import Field

from edgekd import plugins
from edgekd.distill.losses._protocol import FeatureLoss, OfLabels, OfNumbers, Term
from edgekd.records import Record, Shown
from edgekd.wrapping import columns

__all__ = ["LossEntry", "LossesAnswer", "known_losses"]

_INDENT = 14
_NOT_OPTIONS = ("schedule",)


class LossEntry(Record):
    """Entry of one loss."""

    name: str
    paper: str
    needs: str
    use: str
    options: dict[str, Any]  # with their defaults

    def lines(self) -> list[str]:
        """Format the entry as text lines."""
        paper, *rest = _wrapped(self.paper or "no paper named")
        beside = len(self.name) < _INDENT  # a stranger's name may be longer
        return [
            *([f"{self.name:<{_INDENT}}{paper.strip()}"] if beside else [self.name, paper]),
            *rest,
            *_wrapped(f"needs {self.needs}" + (f"; {self.use}" if self.use else "")),
        ]


class LossesAnswer(Shown):
    """All losses, or one with its options."""

    schema_: Literal["edgekd.losses/1"] = Field(default="edgekd.losses/1", alias="schema")
    losses: tuple[LossEntry, ...]

    def lines(self) -> list[str]:
        """Format the entries as text lines."""
        lines = [line for entry in self.losses for line in entry.lines()]
        if len(self.losses) == 1:
            options = ", ".join(f"{name}: {_shown(value)}" for name, value in self.losses[0].options.items())
            return [*lines, *_wrapped(f"options {{{options}}}")]
        return [
            *lines,
            "",
            "in a recipe   distill: {loss: {kd: {temperature: 4}}}",
            "one of them   edgekd losses kd",
        ]


def known_losses(name: str | None = None) -> LossesAnswer:
    """Return every loss, or the one of a name. Raises UnknownName, and MissingError for one that can't be imported."""
    names = plugins.names("edgekd.losses") if name is None else (name,)
    return LossesAnswer(losses=tuple(_entry(each, plugins.load("edgekd.losses", each)) for each in names))


def _entry(name: str, kind: type[Term]) -> LossEntry:
    defaults = kind().model_dump(mode="json")
    options = {option: value for option, value in defaults.items() if option not in _NOT_OPTIONS}
    if not kind.needs_teacher:
        options.pop("standardize", None)
    return LossEntry(name=name, paper=kind.paper, needs=_needs(kind), use=kind.use, options=options)


def _needs(kind: type[Term]) -> str:
    if not kind.needs_teacher:
        return "labels"
    if not issubclass(kind, FeatureLoss):
        forms = [name for name, form in (("labels", OfLabels), ("numbers", OfNumbers)) if issubclass(kind, form)]
        return "a teacher's logits, of classes" + (f", {' or '.join(forms)}" if forms else " alone")
    return f"a teacher's network ({kind().points}: {' or '.join(kind.on)})"


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _wrapped(text: str) -> list[str]:
    indent = " " * _INDENT
    return textwrap.wrap(text, columns(), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
