"""Answer of an export of a user's own model: one row for every file made or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from edgekd.artefacts import Format
from edgekd.errors import ConfigurationError, NothingFits, ParityFailed, Unstable
from edgekd.ir.numerics import Precision
from edgekd.records import Digest, Record, Shown
from edgekd.store.certificate import Parity
from edgekd.store.listing import shortened
from edgekd.units import format_bytes, format_us

__all__ = ["ExportedFile", "ModelExportAnswer", "Outcome"]

Outcome = Literal["written", "passed over", "refused", "differs", "drops", "over budget", "unstable"]
"""``passed over``: acceptable, but another is smaller or faster. ``differs``: in parity. ``drops``: in accuracy."""

_CODES: dict[Outcome, int] = {
    "differs": ParityFailed.exit_code,
    "refused": ConfigurationError.exit_code,
    "drops": NothingFits.exit_code,
    "over budget": NothingFits.exit_code,
    "unstable": Unstable.exit_code,
}


class ExportedFile(Record):
    """File of one format at one precision. ``chosen_by`` is the score by which ``--max-drop`` chose."""

    format: Format
    precision: Precision
    backend: str
    outcome: Outcome
    detail: str = ""  # reason why it was not written
    bundle: Path | None = None
    size_bytes: int | None = None
    parity: Parity | None = None
    chosen_by: float | None = None  # validation
    accuracy: float | None = None  # test; agreement with the float model where there are no labels
    latency_us: float | None = None  # 5th percentile, on the target's device
    certificate: str = ""  # its summary, where there is a target
    sha256: Digest | None = None  # of the certificate, and so of all files it lists
    in_float: str = ""  # operators of an int8 student that compute in float, counted by kind

    def line(self, base: float | None) -> str:
        """Format as one line. ``base``: the float model's accuracy, to show the difference."""
        head = f"{self.format.value:<9} {self.precision.value:<13}"
        if self.outcome in ("refused", "differs"):
            return f"{head} {self.outcome}: {self.detail.splitlines()[0] if self.detail else ''}"
        parts = [format_bytes(self.size_bytes)] if self.size_bytes is not None else []
        if self.accuracy is not None:
            beside = f" ({100 * (self.accuracy - base):+.1f})" if base is not None else ""
            parts.append(f"{self.accuracy:.1%}{beside}")
        elif self.chosen_by is not None:
            parts.append(f"{self.chosen_by:.1%} validation")
        if self.latency_us is not None:
            parts.append(f"{format_us(self.latency_us)} p5")
        if self.parity is not None:
            parts.append(f"parity {self.parity.agree} of {self.parity.samples}")
        if self.outcome == "written" and self.bundle is not None:
            parts.append(shortened(self.bundle))
        else:
            parts.append(f"{self.outcome}: {self.detail}" if self.detail else self.outcome)
        return f"{head} {' . '.join(parts)}"


class ModelExportAnswer(Shown):
    """Result of an export: every file tried, and the folders of the bundles."""

    schema_: Literal["edgekd.export-model/1"] = Field(default="edgekd.export-model/1", alias="schema")
    model: str
    data: str = ""  # the images it was scored on
    metric: Literal["top1", "agreement", ""] = ""
    samples: int = 0
    accuracy: float | None = None  # of the float model in PyTorch on the test split; None without labels
    max_drop: float | None = None  # None: every requested precision is written
    files: tuple[ExportedFile, ...]
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 if every requested file exists (with ``max_drop``, one per format); else the code of the worst reason."""
        if self.max_drop is None:
            return max([0, *(_CODES.get(file.outcome, 0) for file in self.files)])
        codes = [0]
        for form in {file.format for file in self.files}:
            mine = [file for file in self.files if file.format is form]
            if not any(file.outcome == "written" for file in mine):
                codes.append(max(_CODES.get(file.outcome, 0) for file in mine))
            codes += [
                _CODES[file.outcome] for file in mine if file.outcome in ("over budget", "unstable") and file.bundle
            ]
        return max(codes)

    def lines(self) -> list[str]:
        """Format as text lines."""
        lines = [f"model     {self.model}" + (f": {self.accuracy:.1%} in PyTorch" if self.accuracy is not None else "")]
        if self.data:
            what = {"top1": "top-1 of", "agreement": "agreement with the float model on"}.get(self.metric, "")
            lines.append(f"data      {self.data}; {what} {self.samples} test samples")
        base = self.accuracy if self.metric == "top1" else None
        lines += [file.line(base) for file in self.files]
        for file in self.files:
            if file.certificate:
                lines.append(f"          {file.certificate}")
            if file.sha256:
                lines.append(f"digest    {file.sha256}  {shortened(file.bundle) if file.bundle else ''}".rstrip())
        islands = {file.in_float: file.precision.value for file in self.files if file.in_float}
        lines += [f"note: {precision} computes in float: {kinds}" for kinds, precision in islands.items()]
        lines += [f"note: {note}" for note in self.notes]
        written = [file for file in self.files if file.bundle is not None]
        certified = [file.bundle for file in written if file.sha256 and file.bundle]
        lines += [f"next:     edgekd verify {shortened(bundle)}" for bundle in certified]
        if written and not certified:
            models = " ".join(shortened(file.bundle / f"model{file.format.suffix}") for file in written if file.bundle)
            lines.append(f"next:     edgekd bench {models}")
        return lines
