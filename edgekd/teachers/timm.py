"""`timm`: an architecture of PyTorch Image Models, with weights from a file or, on request, from the network.

Files are .safetensors or .npz; the number of classes is the file's. A download is .safetensors if timm offers it, and
never pickled code (``weights_only``). Without ``mean`` and ``std`` the model's own are used, which timm states for
values from 0 to 1. Extra: ``timm``; it needs a torchvision that fits the installed torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import PrivateAttr, model_validator
from torch import Tensor, nn

from edgekd.code_references import ExistingFile
from edgekd.errors import ConfigurationError, first_line, nearest_name
from edgekd.records import digest_file
from edgekd.students.weights import load_weights, read_weights, state_digest
from edgekd.tasks._protocol import TaskSpec
from edgekd.teachers.foreign import ForeignTeacher, Normal, in_raw_units, needed

__all__ = ["TimmTeacher"]


class TimmTeacher(ForeignTeacher):
    """Options of `timm`. ``model`` is its name in timm; give ``weights``, or ``download: true``."""

    model: str
    weights: ExistingFile | None = None
    download: bool = False
    _network: nn.Module | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.weights is None) == (not self.download):
            raise ValueError("give `weights`, a file, or `download: true`, which fetches timm's own: one of the two")
        return self

    @property
    def name(self) -> str:
        """Name in timm."""
        return self.model

    def network(self) -> nn.Module:
        """Return the model, frozen, in eval mode. Raises MissingError without timm."""
        if self._network is None:
            timm = needed("timm", "timm")
            made = self._made(timm) if self.weights is None else _from_file(timm, self.model, self.weights)
            self._network = made.eval().requires_grad_(False)
        return self._network

    def _load(self) -> None:
        self.network()

    def _answer(self, views: Tensor) -> Tensor:
        answers: Tensor = self.network()(views)
        return answers

    def _identity(self) -> Any:
        return [self.model, digest_file(self.weights) if self.weights else state_digest(self.network())]

    def _own(self, spec: TaskSpec) -> Normal | None:
        config: Any = getattr(self.network(), "pretrained_cfg", {})
        return in_raw_units(config["mean"], config["std"], spec) if {"mean", "std"} <= set(config) else None

    def _made(self, timm: Any) -> nn.Module:
        try:
            made: nn.Module = _built(timm, self.model, pretrained=True)
        except OSError as error:  # every error of the network is one
            reason = first_line(error)
            raise ConfigurationError.one(
                f"the weights of `{self.model}` can't be fetched: {reason}", "give a file of them as `weights`"
            ) from error
        return made


def _from_file(timm: Any, model: str, file: Path) -> nn.Module:
    """Build the model with as many classes as the file's last layer, so that a fine-tuned model needs no option."""
    _check_known(timm, model)
    config = timm.models.get_pretrained_cfg(model, allow_unregistered=True)
    layer = getattr(config, "classifier", None)
    bias = read_weights(file).get(f"{layer[0] if isinstance(layer, tuple | list) else layer}.bias")
    made = _built(timm, model, **({} if bias is None else {"num_classes": len(bias)}))
    load_weights(made, file)
    return made


def _built(timm: Any, model: str, **options: Any) -> nn.Module:
    _check_known(timm, model)
    try:
        made: nn.Module = timm.create_model(model, **{"pretrained": False, **options})
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError.one(f"timm can't build `{model}`: {error}", "name another of its models") from error
    return made


def _check_known(timm: Any, model: str) -> None:
    if not timm.is_model(model.partition(".")[0]):
        near = nearest_name(model, timm.list_models())
        raise ConfigurationError.one(
            f"timm has no model `{model}`",
            f"did you mean `{near}`?" if near else "see them with: python -c 'import timm; print(timm.list_models())'",
        )
