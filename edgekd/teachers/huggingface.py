"""`huggingface`: an image classifier of Transformers, from a folder written by ``save_pretrained``.

Weights are read from .safetensors only, and no code beside them is run. ``download: true`` lets ``model`` be a name on
the Hugging Face Hub. Without ``mean`` and ``std`` those of its preprocessor_config.json are used. Extra:
``huggingface``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from pydantic import PrivateAttr, ValidationInfo, field_validator, model_validator
from torch import Tensor, nn

from edgekd.errors import ConfigurationError, first_line
from edgekd.records import digest_file
from edgekd.students.weights import state_digest
from edgekd.tasks._protocol import TaskSpec
from edgekd.teachers.foreign import ForeignTeacher, Normal, in_raw_units, needed

__all__ = ["HuggingfaceTeacher"]


class HuggingfaceTeacher(ForeignTeacher):
    """Options of `huggingface`. ``model`` is a folder, relative to the project's."""

    model: str
    download: bool = False
    _network: nn.Module | None = PrivateAttr(None)

    @field_validator("model")
    @classmethod
    def _anchored(cls, model: str, info: ValidationInfo) -> str:
        folder = Path((info.context or {}).get("folder") or ".") / model
        return str(folder.resolve()) if folder.is_dir() else model

    @model_validator(mode="after")
    def _there(self) -> Self:
        if not self.download and not (Path(self.model) / "config.json").is_file():
            raise ValueError(
                f"{self.model} is no folder with a config.json, as save_pretrained writes it; "
                "`download: true` fetches a model of this name from the Hugging Face Hub"
            )
        return self

    @property
    def name(self) -> str:
        """Name of the folder, or on the hub."""
        return Path(self.model).name if Path(self.model).is_dir() else self.model

    def network(self) -> nn.Module:
        """Return the network from prepared images to logits, frozen, in eval mode.

        Raises MissingError without Transformers.
        """
        if self._network is None:
            self._network = _Logits(self._loaded()).eval().requires_grad_(False)
        return self._network

    def _load(self) -> None:
        self.network()

    def _answer(self, views: Tensor) -> Tensor:
        answers: Tensor = self.network()(views)
        return answers

    def _identity(self) -> Any:
        if not Path(self.model).is_dir():
            return [self.model, state_digest(self.network())]
        read = [path for pattern in ("*.json", "*.safetensors") for path in Path(self.model).glob(pattern)]
        return {path.name: digest_file(path) for path in read}

    def _own(self, spec: TaskSpec) -> Normal | None:
        written = self._preprocessor()
        if written.get("do_flip_channel_order"):
            raise ConfigurationError.one(
                f"the preprocessor of teacher `{self.name}` turns RGB into BGR, which is not done here",
                "give it as a teacher of kind torch: a function whose model flips the channels first",
            )
        scales = written.get("do_rescale", True)
        if not written.get("do_normalize", True):  # pixels from 0 to 1, or as they are
            return in_raw_units((0.0,), (1.0,) if scales else (1 / 255,), spec)
        if "image_mean" not in written or "image_std" not in written:
            return None
        if not scales or abs(written.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-6:
            raise ConfigurationError.one(
                f"the preprocessor of teacher `{self.name}` does not scale pixels to 0..1",
                "write its mean and std in raw units",
            )
        return in_raw_units(written["image_mean"], written["image_std"], spec)

    def _preprocessor(self) -> dict[str, Any]:
        name = "preprocessor_config.json"
        path: Path | str | None = Path(self.model) / name
        if not Path(self.model).is_dir():
            with _quiet():
                path = needed("transformers.utils", "huggingface").cached_file(
                    self.model, name, _raise_exceptions_for_missing_entries=False
                )
        if path is None or not Path(path).is_file():
            return {}
        try:
            written = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigurationError.one(f"{path} can't be read: {error}", "write the model again") from error
        return written if isinstance(written, dict) else {}

    def _loaded(self) -> nn.Module:
        transformers = needed("transformers", "huggingface")
        try:
            with _quiet():
                model, report = transformers.AutoModelForImageClassification.from_pretrained(
                    self.model,
                    local_files_only=not self.download,
                    use_safetensors=True,
                    weights_only=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
        except Exception as error:  # damaged files, unknown architectures and a hub out of reach each have their own
            reason = first_line(error)
            raise ConfigurationError.one(
                f"{self.model} can't be loaded by Transformers: {reason}",
                "give an image classifier saved with save_pretrained(folder, safe_serialization=True)",
            ) from error
        missing = sorted(report["missing_keys"])
        if missing:  # Transformers makes them up, with a warning
            raise ConfigurationError.one(
                f"{self.model} lacks the weights `{missing[0]}`"
                + (f" and {len(missing) - 1} more" if missing[1:] else ""),
                "give a model that was trained to classify",
            )
        module: nn.Module = model.float()
        return module


class _Logits(nn.Module):
    """Wrapper that returns only the logits of a Transformers model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        answers: Tensor = self.model(pixel_values=images).logits
        return answers


@contextmanager
def _quiet() -> Iterator[None]:
    """Disable progress bars and warnings of Transformers inside this context, then restore both."""
    logging = needed("transformers.utils.logging", "huggingface")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
