"""Depthwise separable CNNs for images, spectrograms and signals (DS-CNN: Zhang et al.

2017, "Hello Edge: keyword spotting on microcontrollers", arXiv 1711.07128).

Axes are those of `staged`. A block is a depthwise convolution, which filters each channel, and a 1x1 convolution, which
mixes them, each followed by a ReLU; there are no shortcuts. On a signal (C, T) all convolutions are over time. With
``log_mel`` the network begins with a log-mel spectrogram of the raw signal, which it processes as an image.

Image tasks with several heads, or with a dense one (segmentation, detection), get `heads` after the same blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # the name torch itself uses

from edgekd.errors import ConfigurationError
from edgekd.ir.space import Arch, Space
from edgekd.students.log_mel import LogMel
from edgekd.students.staged import Staged
from edgekd.students.trunk import CONVOLUTIONS, NORMS, Classifier, MakesBlock, ManyHeaded, Sizes
from edgekd.tasks._protocol import TaskSpec

__all__ = ["DsCnn", "Separable"]

Kernel = Annotated[int, Field(ge=1, le=1025)]


class DsCnn(Staged):
    """Family ``dscnn``.

    ``kernel`` is the length of depthwise filters (default 3, and 9 over time), ``stem_kernel`` that of the first
    convolution (default 3, and over time 4 times its stride plus 1). Both are odd.
    """

    name: ClassVar[str] = "dscnn"

    kernel: Kernel | None = None
    stem_kernel: Kernel | None = None
    log_mel: LogMel | None = None

    def space(self, spec: TaskSpec) -> Space:
        """Return the archs; see `Staged.space`."""
        for name, length in (("kernel", self.kernel), ("stem_kernel", self.stem_kernel)):
            if length is not None and length % 2 == 0:
                raise ConfigurationError.one(f"student.{name} is {length}: an odd length is expected", "add 1")
        return super().space(spec)

    def build(self, arch: Arch, spec: TaskSpec) -> nn.Module:
        """Build a network with He-normal weights from torch's global generator, in eval mode."""
        sizes = self._sizes(arch, spec)
        kernel = self.kernel or (3 if sizes.axes == 2 else 9)

        def block(stage: int, before: int, after: int, stride: int) -> Separable:
            del stage
            return Separable(before, after, stride, kernel, sizes.axes)

        if not spec.plain:
            return ManyHeaded(block, sizes, spec).eval()
        front = None if self.log_mel is None else self.log_mel.module(spec.input)
        return Network(block, sizes, spec.head.classes, front).eval()

    def growth_schedule(self, arch: Arch) -> Sequence[Arch]:
        """Return no archs: a block without a shortcut can't start as the identity."""
        del arch
        return ()

    def seen(self, spec: TaskSpec) -> tuple[int, ...]:
        if self.log_mel is not None and not spec.plain:
            raise ConfigurationError.one(
                f"log_mel goes with one classification head, and task `{spec.name}` has others", "leave log_mel out"
            )
        if self.log_mel is not None:
            return self.log_mel.shape(spec.input)
        shape = spec.input.shape
        if len(shape) == 3 or (len(shape) == 2 and spec.plain):
            return shape
        raise ConfigurationError.one(
            f"the family dscnn takes images (C, H, W), and signals (C, T) with one classification head; this task's "
            f"input is {shape}",
            "choose another family: own or pruned for several inputs",
        )

    def _sizes(self, arch: Arch, spec: TaskSpec) -> Sizes:
        sizes = super()._sizes(arch, spec)
        over_time = 4 * sizes.stem_stride + 1
        return sizes._replace(stem_kernel=self.stem_kernel or (3 if sizes.axes == 2 else over_time))


class Network(Classifier):
    """Classifier with an optional front end: (N, C, H, W) or (N, C, T) to (N, classes)."""

    def __init__(self, block: MakesBlock, sizes: Sizes, classes: int, front: nn.Module | None) -> None:
        super().__init__(block, sizes, classes)
        self.front = front or nn.Identity()

    def features(self, images: Tensor) -> Tensor:
        """Return the features before the mean."""
        return super().features(self.front(images))


class Separable(nn.Module):
    """Depthwise convolution and 1x1 convolution."""

    def __init__(self, before: int, after: int, stride: int, kernel: int, axes: int) -> None:
        super().__init__()
        convolution, norm = CONVOLUTIONS[axes], NORMS[axes]
        self.conv1 = convolution(before, before, kernel, stride, kernel // 2, groups=before, bias=False)
        self.norm1 = norm(before)
        self.conv2 = convolution(before, after, 1, bias=False)
        self.norm2 = norm(after)

    def forward(self, features: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(features)))
        return F.relu(self.norm2(self.conv2(inner)))
