"""`keras`: a model saved by Keras 3 (.keras) or by an older version (.h5), on any backend Keras has here.

Files are read in Keras's safe mode, which refuses layers that contain code. Unless KERAS_BACKEND is set, the backend is
PyTorch, so that TensorFlow need not be installed (keras.json is ignored: Keras writes it by itself). Extra: ``keras``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PrivateAttr, model_validator

from edgekd.errors import ConfigurationError, MissingError, first_line
from edgekd.teachers.foreign import needed
from edgekd.teachers.model_file import ModelFile, check_shape

__all__ = ["KerasTeacher"]

_SUFFIXES = (".keras", ".h5", ".hdf5")
_OLDEST = (3, 12)  # older ones run code from .h5 files, or read files these name, in safe mode too


class KerasTeacher(ModelFile):
    """Options of `keras`. ``input: raw`` is for models that begin with a Rescaling or Normalization layer."""

    _model: Any = PrivateAttr(None)

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.file.suffix not in _SUFFIXES:
            raise ValueError(f"{self.file.name} is no {' or '.join(_SUFFIXES)} file: write model.save('teacher.keras')")
        return self

    def _run(self, fed: NDArray[np.float32]) -> NDArray[Any]:
        keras = _keras()
        if self._model is None:
            self._model = _loaded(keras, self.file)
        takes = getattr(self._model, "input_shape", None)
        if isinstance(takes, tuple):
            check_shape(self, takes[1:], fed.shape[1:])
        try:
            return np.asarray(keras.ops.convert_to_numpy(self._model(fed, training=False)))
        except Exception as error:  # every layer and every backend has errors of its own
            raise ConfigurationError.one(
                f"teacher `{self.name}` can't take images {fed.shape[1:]}: {first_line(error)}",
                "give a model with one image input and one output of logits",
            ) from error


def _keras() -> Any:
    """Import Keras, on PyTorch unless configured otherwise. Raises MissingError."""
    undecided = "keras" not in sys.modules and "KERAS_BACKEND" not in os.environ
    if undecided:
        os.environ["KERAS_BACKEND"] = "torch"
    try:
        keras = needed("keras", "keras")
    finally:
        if undecided:  # Keras has read it, and nothing else should
            del os.environ["KERAS_BACKEND"]
    version = str(keras.__version__)
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        raise MissingError(
            f"keras {version} does not read models safely, and {'.'.join(map(str, _OLDEST))} or newer does",
            "install it with: pip install 'edgekd[keras]'",
        )
    return keras


def _loaded(keras: Any, file: Path) -> Any:
    try:
        return keras.models.load_model(file, compile=False, safe_mode=True)
    except Exception as error:  # damage, unknown layers, layers with code: each has its own
        raise ConfigurationError.one(
            f"{file} can't be loaded by Keras: {first_line(error)}",
            "save it again with model.save('teacher.keras'); Lambda layers and layers of your own are not loaded",
        ) from error
