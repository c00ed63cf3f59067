"""Deployed form of a student: raw outputs are decoded to a file's outputs inside the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from edgekd.students.heads.detection import DetectionDecoder
from edgekd.students.heads.many import raw_names
from edgekd.students.heads.regression import RegressionDecoder
from edgekd.students.heads.segmentation import SegmentationDecoder
from edgekd.tasks._protocol import HeadSpec, TaskSpec

__all__ = ["DECODE", "Decoder", "Deployed", "deployed"]

DECODE = "decode"
"""Path of the decoder in a deployed module; it computes in float."""


class Decoder(nn.Module):
    """Converts raw outputs by name to the outputs of `outputs_of`, in their order."""

    def __init__(self, spec: TaskSpec) -> None:
        super().__init__()
        self.specs = spec.heads
        self.heads = nn.ModuleList(_decoder(head, spec.input.shape[1:]) for head in spec.heads)

    def forward(self, raw: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the outputs, each (N, ...)."""
        outputs: list[Tensor] = []
        for spec, head in zip(self.specs, self.heads, strict=True):
            given = [raw[name] for name in raw_names(spec)]
            outputs += given if spec.kind in ("classification", "multilabel") else head(*given)
        return tuple(outputs)


class Deployed(nn.Module):
    """A student's module followed by its decoder."""

    def __init__(self, core: nn.Module, spec: TaskSpec) -> None:
        super().__init__()
        self.core = core
        self.decode = Decoder(spec)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map normalised images (N, C, H, W) to a file's outputs."""
        outputs: tuple[Tensor, ...] = self.decode(self.core(images))
        return outputs


def deployed(module: nn.Module, spec: TaskSpec) -> nn.Module:
    """Return the module to export: itself for a plain task. It contains the given module, in its mode."""
    return module if spec.plain else Deployed(module, spec)


def _decoder(head: HeadSpec, size: Sequence[int]) -> nn.Module:
    if head.kind == "regression":
        return RegressionDecoder(head)
    if head.kind not in ("detection", "segmentation"):
        return nn.Identity()
    height, width = size
    return DetectionDecoder(head, (height, width)) if head.kind == "detection" else SegmentationDecoder((height, width))
