"""SimKD: the student reuses the teacher's classifier (Chen et al.

2022, "Knowledge distillation with the reused teacher classifier", CVPR, arXiv 2203.14001):

    loss   = mean( (teacher - P(student))^2 )        maps of the last stages, at the smaller resolution of both
    logits = W_t . mean over the map of P(student) + b_t

P is a projector trained with the student; W_t and b_t, the teacher's, are fixed. Labels are not used.

**Here P is linear**, a 1 x 1 convolution. So it commutes with the mean over the map and folds into the classifier: W =
W_t P, one linear layer of the student's own size, and the trained student has the layers of its arch. The paper's P is
three convolutions (1x1, 3x3, 1x1, each with normalisation and ReLU) which stay in the student; it is stronger: by the
authors' table (CIFAR-100, ResNet-32x4 to ResNet-8x4) with a bottleneck of 1/2, 1/4 or 1/8 of the teacher's channels
78.1, 77.9 and 76.7 %, where a student on labels alone has 73.1 and `kd` 74.4 %. The teacher's maps are outputs of a
ReLU, which a linear P can only approximate: expect less than in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn
from torch.nn import functional

from edgekd.distill.losses._protocol import Choice, FeatureLoss, Site
from edgekd.distill.losses.connect import same_resolution
from edgekd.distill.losses.criterion import Batch, Criterion
from edgekd.errors import ConfigurationError

__all__ = ["Reused", "SimKD"]


class SimKD(FeatureLoss):
    """Options of `simkd`. Maps of the last stages.

    Default weight: the paper's is 1, with which 15 epochs on CIFAR-10 lost 7 points; they gained 6 with 10, and ended
    at chance level with 100 (`benchmarks/distill_losses.py`).
    """

    labels_too: ClassVar[bool] = False
    adds_layers: ClassVar[bool] = True
    on: ClassVar[tuple[Literal["map", "vector"], ...]] = ("map",)
    paper: ClassVar[str] = "Chen 2022, Knowledge distillation with the reused teacher classifier, CVPR"
    use: ClassVar[str] = "labels that are few or doubtful, and a student about as wide as its teacher"

    weight: NonNegativeFloat = 10.0
    points: Choice = "last stage"

    def problem(self, site: Site) -> str:
        """Return why the loss can't be used, also if a classifier does not directly follow the last stage's average."""
        if base := super().problem(site):
            return base
        if len(site.pairs) != 1:
            return f"it compares only the last stages, and there are {len(site.pairs)} pairs of points"
        if site.classifier is None:
            return "the teacher has no linear layer at its end to be reused"
        if not site.student_classifier:
            return "the student has no linear layer at its end for the teacher's to take its place"
        (student, teacher), (classes, width) = site.pairs[0], site.classifier[0].shape
        if classes != site.classes:
            return f"the teacher's linear layer has {classes} classes, and the task has {site.classes}"
        for who, point, taken in (("teacher", teacher, width), ("student", student, site.student_width)):
            if point.shape[0] != taken:
                return (
                    f"the {who}'s last linear layer takes {taken} numbers, and `{point.name}` has {point.shape[0]} "
                    "channels: there is more than an average over the map between them"
                )
        return ""

    def criterion(self, site: Site) -> Criterion:
        """Return a criterion without parameters: the projector belongs to the student."""
        return _Projected(site)


class Reused(nn.Linear):
    """The student's last layer during the training: weight and bias are the projector's, outputs the teacher's logits.

    It is a linear layer from the student's width to the teacher's, so that its input is still `penultimate`.
    """

    teacher_weight: Tensor  # buffers: they can't be set to learn
    teacher_bias: Tensor

    def __init__(self, width: int, classifier: tuple[Tensor, Tensor], like: Tensor) -> None:
        super().__init__(width, classifier[0].shape[1], device=like.device, dtype=like.dtype)
        for name, tensor in zip(("teacher_weight", "teacher_bias"), classifier, strict=True):
            self.register_buffer(name, tensor.detach().to(like, copy=True))

    def forward(self, vectors: Tensor) -> Tensor:
        """Map (N, student width) to logits (N, classes)."""
        return functional.linear(super().forward(vectors), self.teacher_weight, self.teacher_bias)

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """Return the equivalent single linear layer."""
        weight, bias, teacher_weight, teacher_bias = (
            tensor.cpu().double() for tensor in (self.weight, self.bias, self.teacher_weight, self.teacher_bias)
        )
        one = nn.Linear(self.in_features, len(teacher_bias), device="meta", dtype=self.weight.dtype)
        one = one.to_empty(device=self.weight.device)  # without drawing weights first
        one.weight.copy_(teacher_weight @ weight)
        one.bias.copy_(teacher_weight @ bias + teacher_bias)
        return one.train(self.training).requires_grad_(self.weight.requires_grad)


class _Projected(Criterion):
    def __init__(self, site: Site) -> None:
        super().__init__()
        assert site.classifier is not None, "problem() refuses this"
        self.path, self.classifier = site.student_classifier, site.classifier
        self.reused: tuple[Reused, ...] = ()  # in a tuple, so that its parameters are not this module's too

    def attach(self, module: nn.Module) -> None:
        """Replace the student's classifier by a new projector and the teacher's classifier.

        Raises ConfigurationError if the layer has no bias to fold, has been replaced before, or is frozen.
        """
        last = module.get_submodule(self.path)
        if isinstance(last, Reused):
            raise ConfigurationError.one(
                "simkd is written twice, and the teacher's classifier can be reused once", "leave one of them out"
            )
        if not isinstance(last, nn.Linear) or last.bias is None:
            raise ConfigurationError.one(
                f"simkd: the student's `{self.path}` is no linear layer with a bias: {last}",
                "give that layer a bias, or use another loss",
            )
        if not last.weight.requires_grad:
            raise ConfigurationError.one(
                f"simkd puts another layer in the place of the student's `{self.path}`, which is frozen",
                f"leave {self.path} out of freeze, or use another loss",
            )
        self.reused = (Reused(last.in_features, self.classifier, last.weight).train(last.training),)
        _replace(module, self.path, self.reused[0])

    def detach_from(self, module: nn.Module) -> None:
        """Fold the projector; names and shapes of parameters are those before `attach`."""
        for path, part in list(module.named_modules()):
            if isinstance(part, Reused):
                _replace(module, path, part.folded())

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], batch: Batch) -> Tensor:
        """Return the loss of the single pair. Raises RuntimeError before `attach`."""
        del batch
        if not self.reused:
            raise RuntimeError("simkd compares by the student's own layer: attach it first")
        own, target = same_resolution(student[0], teacher[0])
        projector = self.reused[0]
        return functional.mse_loss(functional.conv2d(own, projector.weight[:, :, None, None], projector.bias), target)


def _replace(module: nn.Module, path: str, part: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, part)
