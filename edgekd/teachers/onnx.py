"""`onnx`: any model in an ONNX file, answered by ONNX Runtime on the CPU.

``input: normalised`` (the default) gives it ``(raw - mean) / std`` with the mean and std written here, else the
task's; ``input: raw`` gives it raw values, for files that hold their own normalisation. ``answers: probabilities`` is
for files that end in a softmax: their logarithm are logits, up to a constant. A file with a fixed batch is fed in
pieces of that size.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PrivateAttr, model_validator
from torch import Tensor

from edgekd.errors import ConfigurationError, UnknownName
from edgekd.records import Digest, Record, digest_file, digest_json
from edgekd.references import ExistingFile
from edgekd.tasks._protocol import TaskSpec
from edgekd.teachers.normalise import check_pair, normalised

__all__ = ["OnnxTeacher"]


_LEAST = 1e-12  # of a probability whose logarithm is taken


class OnnxTeacher(Record):
    """Options of `onnx`. ``output`` names the logits where the file has several outputs."""

    file: ExistingFile
    input: Literal["normalised", "raw"] = "normalised"
    layout: Literal["nchw", "nhwc"] = "nchw"
    output: str | None = None
    answers: Literal["logits", "probabilities"] = "logits"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    _session: Any = PrivateAttr(None)
    _classes: int | None = PrivateAttr(None)
    _digest: Digest | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _paired(self) -> Self:
        check_pair(self.mean, self.std)
        return self

    @property
    def name(self) -> str:
        """The file's name without suffix."""
        return self.file.stem

    @property
    def classes(self) -> int:
        """How many classes it tells apart, as its first answer showed. Raises ConfigurationError before that."""
        if self._classes is None:
            raise ConfigurationError.one(f"teacher `{self.name}` has not answered yet", "bind it to a task first")
        return self._classes

    def digest(self) -> Digest:
        """Identity of the file (with weights kept beside it) and of how it is fed."""
        if self._digest is None:
            beside = [self.file.with_name(self.file.name + suffix) for suffix in (".data", "_data")]
            self._digest = digest_json(
                {
                    "files": [digest_file(path) for path in (self.file, *beside) if path.is_file()],
                    "fed": [self.input, self.layout, self.output, self.answers, self.mean, self.std],
                }
            )
        return self._digest

    def bound(self, spec: TaskSpec) -> OnnxTeacher:
        """With the task's normalisation where it needs one and has none of its own."""
        if self.input == "raw" or self.mean is not None:
            return self
        return self.but(mean=spec.input.mean, std=spec.input.std)

    def logits(self, batch: Tensor) -> Tensor:
        """Answers (N, classes), float32, for raw-unit batches (N, C, H, W)."""
        if self.input == "raw":
            views = batch.float()
        elif self.mean is not None and self.std is not None:
            views = normalised(batch, self.mean, self.std)
        else:
            raise ConfigurationError.one(
                f"teacher `{self.name}` has no mean and std", "give them, say `input: raw`, or bind it to a task"
            )
        if self.layout == "nhwc":
            views = views.permute(0, 2, 3, 1)
        answers = self._run(views.contiguous().numpy())
        if answers.ndim != 2 or len(answers) != len(batch):
            raise ConfigurationError.one(
                f"teacher `{self.name}` answered {answers.shape} to {len(batch)} images, and (N, classes) was expected",
                "name the output that gives logits, with `output`",
            )
        self._classes = answers.shape[1]
        found = torch.from_numpy(answers.astype(np.float32))
        return found.clamp_min(_LEAST).log() if self.answers == "probabilities" else found

    def _run(self, views: NDArray[np.float32]) -> NDArray[Any]:
        if self._session is None:
            self._session = _opened(self.file)
        entry, outputs = self._session.get_inputs()[0], [output.name for output in self._session.get_outputs()]
        if self.output is not None and self.output not in outputs:
            raise UnknownName("output", self.output, outputs, remedy=f"in {self.file}")
        self._check_types(
            entry.type, next(o.type for o in self._session.get_outputs() if o.name == (self.output or outputs[0]))
        )
        fed = views if "float" in entry.type else _as_pixels(views)
        run = partial(self._answered, entry.name, self.output or outputs[0])
        fixed = entry.shape[0] if entry.shape and isinstance(entry.shape[0], int) else None
        if fixed is None or fixed == len(fed):
            return run(fed)
        pieces = []
        for start in range(0, len(fed), fixed):
            piece = fed[start : start + fixed]
            # the last piece is filled up with its own last picture, and the surplus answers dropped
            filled = np.concatenate([piece, np.repeat(piece[-1:], fixed - len(piece), axis=0)])
            pieces.append(run(filled)[: len(piece)])
        return np.concatenate(pieces)

    def _check_types(self, entry: str, output: str) -> None:
        if "float" not in entry and (entry != "tensor(uint8)" or self.input != "raw"):
            raise ConfigurationError.one(
                f"teacher `{self.name}` takes {entry}, and `input: {self.input}` gives it something else",
                "write `input: raw` for a file of raw uint8 pixels; other integers can't be fed",
            )
        if "float" not in output:
            raise ConfigurationError.one(
                f"teacher `{self.name}` answers {output}, integers of an unknown scale",
                "give a file with float answers",
            )

    def _answered(self, entry: str, output: str, fed: NDArray[Any]) -> NDArray[Any]:
        try:
            answers: NDArray[Any] = self._session.run([output], {entry: fed})[0]
        except Exception as error:  # the runtime's own errors have no common base
            raise ConfigurationError.one(
                f"teacher `{self.name}` can't take {fed.dtype} {fed.shape}: {str(error).splitlines()[0]}",
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
            f"{file} can't be loaded by ONNX Runtime: {str(error).splitlines()[0]}", "export the model again"
        ) from error
    if len(session.get_inputs()) != 1:
        inputs = ", ".join(entry.name for entry in session.get_inputs())
        raise ConfigurationError.one(f"{file} has several inputs ({inputs})", "a teacher takes one image input")
    return session
