"""Builder of probe files: untrained, for time does not depend on the values of weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import Fingerprint
from edgekd.export._protocol import ExportOptions
from edgekd.export.converter import Converter
from edgekd.ir.numerics import Precision
from edgekd.ir.plan import Candidate, CompressionPlan
from edgekd.profiling.depthwise import Depthwise
from edgekd.profiling.probes import Probe
from edgekd.search.trials.untrained import UntrainedBuilder

__all__ = ["BuildsProbes", "ProbeBuilder"]


class BuildsProbes(Protocol):
    """Builder of a probe's file."""

    def __call__(self, probe: Probe | Depthwise, backend: Backend, precision: Precision) -> tuple[Artefact | None, str]:
        """Return the file, or None and the reason."""
        ...


@dataclass(frozen=True)
class ProbeBuilder:
    """Builder by the exporters. Files are made in ``scratch``, which the caller removes."""

    converter: Converter
    fingerprint: Fingerprint
    scratch: Path

    def __call__(self, probe: Probe | Depthwise, backend: Backend, precision: Precision) -> tuple[Artefact | None, str]:
        """Return the file, or None and the reason."""
        family = probe.family
        builder = UntrainedBuilder(probe.task, family, self.converter, ExportOptions(), self.fingerprint, 0)
        candidate = Candidate(
            family=family.name, arch=probe.arch(), plan=CompressionPlan(precision=precision), backend=backend
        )
        name = f"{backend}-{precision.value}-{probe.name}".replace("/", "-").replace(" ", "-")
        made = builder.make(candidate, self.scratch / name / "model")
        return made.artefact, made.detail
