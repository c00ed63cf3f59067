"""`onnx`: any model in an ONNX file, run by ONNX Runtime on the CPU.

``input: normalised`` (the default) feeds ``(raw - mean) / std`` with the mean and std of these options, else the
task's; ``input: raw`` feeds raw values, for files with their own normalisation. ``answers: probabilities`` is for files
that end in a softmax: their logarithms are logits, up to a constant. A file with a fixed batch is fed batches of that
size. ``resize`` is the (height, width) of the file's input, if it differs from the task's.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PrivateAttr

from edgekd.errors import ConfigurationError, UnknownName, first_line
from edgekd.external_weights import external_files
from edgekd.records import digest_file
from edgekd.teachers.model_file import ModelFile, check_shape

__all__ = ["OnnxTeacher"]

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


class OnnxTeacher(ModelFile):
    """Options of `onnx`. ``output`` names the logits if the file has several outputs."""

    layout: Literal["nhwc", "nchw"] = "nchw"
    output: str | None = None
    _session: Any = PrivateAttr(None)

    def _identity(self) -> Any:
        """Return the digests of the file and of external weights beside it."""
        return [digest_file(path) for path in (self.file, *external_files(self.file))]

    def _feeding(self) -> Any:
        return [*super()._feeding(), self.output]

    def _run(self, fed: NDArray[np.float32]) -> NDArray[Any]:
        if self._session is None:
            self._session = _opened(self.file)
        entry, outputs = self._session.get_inputs()[0], [output.name for output in self._session.get_outputs()]
        if self.output is not None and self.output not in outputs:
            raise UnknownName("output", self.output, outputs, remedy=f"in {self.file}")
        self._check_types(
            entry.type, next(o.type for o in self._session.get_outputs() if o.name == (self.output or outputs[0]))
        )
        check_shape(self, tuple(side if isinstance(side, int) else None for side in entry.shape[1:]), fed.shape[1:])
        run = partial(self._answered, entry.name, self.output or outputs[0])
        taken = fed.astype(_FLOATS[entry.type], copy=False) if entry.type in _FLOATS else _as_pixels(fed)
        fixed = entry.shape[0] if entry.shape and isinstance(entry.shape[0], int) else None
        if fixed is None or fixed == len(taken):
            return run(taken)
        batches = []
        for start in range(0, len(taken), fixed):
            batch = taken[start : start + fixed]
            # the last batch is padded with its own last image, and the surplus outputs are dropped
            filled = np.concatenate([batch, np.repeat(batch[-1:], fixed - len(batch), axis=0)])
            batches.append(run(filled)[: len(batch)])
        return np.concatenate(batches)

    def _check_types(self, entry: str, output: str) -> None:
        if entry not in _FLOATS and (entry != "tensor(uint8)" or self.input != "raw"):
            raise ConfigurationError.one(
                f"teacher `{self.name}` takes {entry}, and `input: {self.input}` gives it something else",
                "write `input: raw` for a file of raw uint8 pixels; other integers can't be fed",
            )
        if output not in _FLOATS:
            raise ConfigurationError.one(
                f"teacher `{self.name}` outputs {output}, integers of an unknown scale",
                "give a file with float outputs",
            )

    def _answered(self, entry: str, output: str, fed: NDArray[Any]) -> NDArray[Any]:
        try:
            answers: NDArray[Any] = self._session.run([output], {entry: fed})[0]
        except Exception as error:  # the runtime's own errors have no common base
            raise ConfigurationError.one(
                f"teacher `{self.name}` can't take {fed.dtype} {fed.shape}: {first_line(error)}",
                "check `layout` and the task's images",
            ) from error
        return answers


def _as_pixels(views: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(views), 0, 255).astype(np.uint8)


def _opened(file: Path) -> Any:
    import onnxruntime  # half a second, and only where such a teacher is used

    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own errors have no common base
        raise ConfigurationError.one(
            f"{file} can't be loaded by ONNX Runtime: {first_line(error)}", "export the model again"
        ) from error
    if len(session.get_inputs()) != 1:
        inputs = ", ".join(entry.name for entry in session.get_inputs())
        raise ConfigurationError.one(f"{file} has several inputs ({inputs})", "a teacher takes one image input")
    return session
