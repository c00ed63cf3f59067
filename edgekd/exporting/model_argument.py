"""MODEL argument: a function that builds it, or a file; and its input shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from torch import nn

from edgekd.code_references import CodeReference
from edgekd.errors import ConfigurationError, Place, UsageError, nearest_name
from edgekd.project import notice_code
from edgekd.students.own import GRAPH, Own, inputs_in
from edgekd.students.weights import source_file
from edgekd.tasks.named_inputs import NamedInput

__all__ = ["GivenModel", "given_model"]

_PROGRAMS = (".pt2", GRAPH)
_WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".npz")
_EXPORTED = (".tflite", ".xml")


@dataclass(frozen=True)
class GivenModel:
    """Model with a name for messages and folders, and the inputs that its file names: none of a function's."""

    called: str
    family: Own
    inputs: tuple[NamedInput, ...]

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape (C, H, W) of the only input that its file names."""
        return self.inputs[0].shape if len(self.inputs) == 1 else None

    @property
    def files(self) -> tuple[Path, ...]:
        """Source files of the model: source, weights, program."""
        source = source_file(self.family.model) if self.family.model is not None else None
        return tuple(path for path in (source, self.family.weights, self.family.program) if path is not None)

    def module(self, notice: Callable[[str], None]) -> nn.Module:
        """Return a copy, frozen, in eval mode. Raises ConfigurationError where it can't be built."""
        return self.family.module(notice)


def given_model(
    text: str, weights: Path | None, notice: Callable[[str], object] = lambda _: False, folder: Path = Path()
) -> GivenModel:
    """Read the model that ``text`` names, relative to ``folder``. ``notice`` gets whose code runs, once a folder.

    Raises UsageError on a text that names no model, ConfigurationError on a file that is missing or wrong.
    """
    path = folder / text
    if path.suffix in _WEIGHTS:
        raise UsageError(
            f"{text} holds weights, and no model",
            f"name the function that builds it: edgekd export my_model.py:build --weights {text}",
        )
    if path.suffix in _EXPORTED:
        raise UsageError(f"{text} is exported already", "give the PyTorch model it came from, or edgekd bench it")
    options: dict[str, object]
    if path.suffix in _PROGRAMS:
        if weights is not None:
            raise UsageError(f"{text} has its weights inside", "leave --weights out")
        _require(path)
        options, code, called = {"program": path.absolute()}, path.name, path.stem
    else:
        try:
            reference = CodeReference.parse(text, folder.resolve())
        except ValueError as error:
            raise UsageError(
                f"{text}: {error}", "name a function (my_model.py:build), a .pt2 or .onnx file, or the folder of a run"
            ) from None
        if weights is not None:
            _require(folder / weights)
        options = {"model": text} | ({"weights": (folder / weights).absolute()} if weights is not None else {})
        code, called = reference.target, reference.target.rpartition(":")[2]
    if path.suffix != GRAPH:  # a graph holds no code
        notice_code(folder.resolve(), (code,), notice)
    try:
        family = Own.model_validate(options, context={"folder": folder.resolve()})
    except ValidationError as error:
        raise ConfigurationError.one(f"{text}: {error.errors(include_url=False)[0]['msg']}") from error
    return GivenModel(called, family, inputs_in(path) if path.suffix in _PROGRAMS else ())


def _require(path: Path) -> None:
    if path.is_file():
        return
    near = nearest_name(path.name, [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [])
    hint = f"did you mean `{path.with_name(near)}`?" if near else "check the path"
    raise ConfigurationError.one("no such file", hint, Place(str(path)))
