"""Probe networks of a profile, from the families `resnet` and `mobilenet`: their results hold for a search's proposals,
and for other networks of dense, depthwise and 1x1 convolutions.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekd.ir.kernels import Kernels
from edgekd.ir.space import Arch
from edgekd.records import digest_json
from edgekd.students.analysis import kernels_of_arch
from edgekd.students.mobilenet import MobileNet
from edgekd.students.resnet import ResNet
from edgekd.tasks._protocol import HeadSpec, InputSpec, Score, Split, SplitName, TaskSpec
from edgekd.tasks.score import top1

__all__ = ["NETWORKS", "Probe", "ProbeTask", "candidates", "overhead", "peak", "usual", "width_sweep"]

_CLASSES = 10
_MEAN, _STD = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)  # of ImageNet: equal channels would be scaled faster
_CALIBRATION = 32
_RESNETS, _MOBILENETS = 192, 96
NETWORKS = 36
"""Number of probe networks for the predictor; none in a quick profile."""


@dataclass(frozen=True)
class Probe:
    """Probe network: channels and blocks per stage, on images of ``side`` x ``side``.

    With ``expansions`` it is a MobileNet, whose stem halves the side.
    """

    name: str
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    side: int
    expansions: tuple[int, ...] = ()

    @property
    def family(self) -> ResNet | MobileNet:
        """Space with this one arch."""
        space: dict[str, Any] = {"widths": self.widths, "depths": self.depths}
        if not self.expansions:
            return ResNet.model_validate({"space": space, "stages": len(self.widths)})
        space |= {"expansions": self.expansions, "stem_stride": [2]}
        return MobileNet.model_validate({"space": space, "stages": len(self.widths)})

    @property
    def task(self) -> ProbeTask:
        """Task with its input and ten classes."""
        return ProbeTask(self.side)

    def arch(self) -> Arch:
        """The only arch."""
        return self.family.space(self.task.spec).at(0)

    def kernels(self) -> Kernels:
        """Kernels, counted from the layers."""
        return kernels_of_arch(self.family, self.arch(), self.task.spec)


class ProbeTask:
    """Task of noise images: latency does not depend on their content."""

    def __init__(self, side: int, channels: int = 3) -> None:
        scaled = (_MEAN, _STD) if channels == len(_MEAN) else ((128.0,), (64.0,))
        shape = InputSpec(shape=(channels, side, side), mean=scaled[0], std=scaled[1])
        self.spec = TaskSpec(name="probe", input=shape, head=HeadSpec(classes=_CLASSES), data=digest_json("probe"))

    def split(self, name: SplitName) -> Split:
        """Return the same few images for every split."""
        drawn = np.random.default_rng(0)
        inputs = drawn.integers(0, 256, (_CALIBRATION, *self.spec.input.shape), dtype=np.uint8)
        return Split(name, inputs, drawn.integers(0, _CLASSES, _CALIBRATION), digest_json("probe"))

    def score(self, outputs: Any, labels: Any) -> Score:
        """Top-1, as for any classifier; probes are never trained."""
        return top1(outputs, labels)


def overhead() -> Probe:
    """Minimal network, to measure the overhead of a call."""
    return Probe("overhead", (1,), (1,), 4)


def peak() -> Probe:
    """Wide, dense convolutions, the fastest operators of every runtime: 0.3 G multiply-adds."""
    return Probe("peak", (128,), (1,), 32)


def usual() -> Probe:
    """ResNet-8 of MLPerf Tiny: 12.5 M multiply-adds. The device's behaviour is measured on it."""
    return Probe("resnet-8", (16, 32, 64), (1, 1, 1), 32)


def width_sweep(quick: bool) -> tuple[Probe, ...]:
    """Width sweep: one stage of one block, ever wider. Kernels work on whole vectors of channels, so time rises in
    steps.
    """
    widths = (16, 64) if quick else range(4, 65, 4)
    return tuple(Probe(f"width {width}", (width,), (1,), 16) for width in widths)


def candidates() -> tuple[Probe, ...]:
    """Random networks of three stages, of which some are measured.

    ResNets of 8 to 64 channels and one to three blocks a stage, at 32 x 32; MobileNets of one or two blocks a stage,
    widened up to six times, at 32 x 32 to 96 x 96.
    """
    drawn = random.Random(0)
    found: dict[tuple[int, ...], Probe] = {}
    while len(found) < _RESNETS:
        widths = tuple(8 * drawn.randint(1, 8) for _ in range(3))
        depths = tuple(drawn.randint(1, 3) for _ in range(3))
        name = f"network {'-'.join(map(str, widths))} x {'-'.join(map(str, depths))}"
        found[widths + depths] = Probe(name, widths, depths, 32)
    while len(found) < _RESNETS + _MOBILENETS:
        widths = tuple(8 * drawn.randint(1, most) for most in (4, 8, 16))
        depths = tuple(drawn.randint(1, 2) for _ in range(3))
        expansions = tuple(drawn.choice((1, 2, 4, 6)) for _ in range(3))
        side = drawn.choice((32, 64, 96))
        sizes = " x ".join("-".join(map(str, each)) for each in (widths, depths, expansions))
        found[(*widths, *depths, *expansions, side)] = Probe(
            f"mobile {sizes} at {side}", widths, depths, side, expansions
        )
    return tuple(found.values())
