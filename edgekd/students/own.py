"""Family ``own``: a trained model unchanged, a space of one arch. Nothing is pruned; precisions and runtimes remain.

The model is a function that builds it, with its weights, or a program: a file of ``torch.export.save`` (.pt2), or an
ONNX graph. It takes one normalised float32 image (N, C, H, W), or several inputs by name, and returns logits
(N, classes), or raw outputs of the task's heads, in any of the forms that `students.outputs` reads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgekd.agent.faults import is_shortage, is_want_of_memory
from edgekd.artefacts import Artefact
from edgekd.code_references import CodeReference, ExistingFile
from edgekd.errors import ConfigurationError, first_line
from edgekd.ir.space import Arch, Space
from edgekd.records import Digest, Record, digest_file, digest_json
from edgekd.students.heads.many import raw_names
from edgekd.students.onnx_program import module_of_onnx, onnx_input_shape
from edgekd.students.outputs import MAPS, answering, answering_logits, described, logits_in, misfit
from edgekd.students.program import module_of, program_inputs
from edgekd.students.unpacking import inputs_of
from edgekd.students.weights import built_module, forget_own_weights, model_digests, source_file
from edgekd.tasks._protocol import InputSpec, TaskSpec
from edgekd.tasks.named_inputs import NamedInput

__all__ = [
    "GRAPH",
    "Own",
    "classes_of",
    "forget_models",
    "inputs_in",
    "require_fit",
    "require_repeatable",
]

GRAPH = ".onnx"
_AXES = (2, 3)
_BATCH, _IMAGE = 2, 3
_LATER = "models of images (C, H, W), signals (C, T), texts or several inputs are taken"


class Own(Record):
    """Options of ``own``: ``model``, with ``weights`` unless the function loads them itself; or ``program``, a file."""

    name: ClassVar[str] = "own"
    inherits: ClassVar[bool] = True

    model: CodeReference | None = None
    weights: ExistingFile | None = None
    program: ExistingFile | None = None

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.model is None) == (self.program is None):
            raise ValueError("give `model` (my_model.py:build) or `program` (a .pt2 or .onnx file), one of them")
        if self.program is not None and self.weights is not None:
            raise ValueError("a `program` has its weights inside: leave `weights` out")
        return self

    @property
    def called(self) -> str:
        """Name in messages."""
        return self.model.target if self.model is not None else self._file.name

    def digest(self) -> Digest:
        """Return the identity of options, source and weights; of weights drawn at random, their source stands alone."""
        own = model_digests(self.model, None)[1] if self.model is not None and self.weights is None else None
        return self._identity([own] if own is not None else [])

    def _identity(self, content: list[Digest]) -> Digest:
        """Return the digest of the options and of all files, behind ``content``."""
        files = [self.weights, source_file(self.model) if self.model is not None else None]
        content = content + [digest_file(path) for path in files if path is not None]
        if self.program is not None:
            is_graph = self.program.suffix == GRAPH  # which may have weights in other files
            content.append(Artefact.of(self.program).sha256 if is_graph else digest_file(self.program))
        return digest_json({"options": self.model_dump(mode="json", exclude={"weights", "program"}), "files": content})

    def space(self, spec: TaskSpec) -> Space:
        """Return one arch without axes. Raises ConfigurationError if the model doesn't fit the task."""
        module = self._answering(spec)
        require_fit(module, spec, self.called)
        if spec.plain:
            require_repeatable(module, spec.input, self.called)
        return Space(axes=())

    def original(self, spec: TaskSpec) -> Arch:
        """Return the only arch."""
        return self.space(spec).at(0)

    def build(self, arch: Arch, spec: TaskSpec) -> nn.Module:  # noqa: ARG002  # a family's signature; there is one arch
        """Return a copy of the model, in eval mode: normalised (N, C, H, W) to logits, or raw outputs by name."""
        return self._answering(spec).requires_grad_(True)

    def module(self, notice: Callable[[str], None] = lambda _: None) -> nn.Module:
        """Return a copy of the model, frozen, in eval mode, that returns its logits if it has them.

        ``notice`` is called about a cast when the model is first built.

        Raises ConfigurationError if it can't be built or read.
        """
        return answering_logits(copy.deepcopy(_loaded(self, notice)))

    def _answering(self, spec: TaskSpec) -> nn.Module:
        names = [name for head in spec.heads for name in raw_names(head)]
        if self.program is not None and len(names) > 1:
            raise ConfigurationError.one(
                f"`{self.called}`: of a program one output is read, and task `{spec.name}` needs {', '.join(names)}",
                "give the function that builds it: my_model.py:build, with `weights`",
            )
        return answering(copy.deepcopy(_loaded(self, lambda _: None)), spec)

    @property
    def _file(self) -> Path:
        assert self.program is not None  # the validator has seen to it
        return self.program


_KEPT: dict[Digest, nn.Module] = {}


def _loaded(family: Own, notice: Callable[[str], None]) -> nn.Module:
    """Return the model, built once in each process: each precision needs it."""
    if family.model is not None:
        family.model.resolve()  # has the best message for a wrong name
    key = family._identity([])  # a function is called once, not once more to know its weights
    if key not in _KEPT:
        _KEPT.clear()
        _KEPT[key] = _read(family, notice)
    return _KEPT[key]


def forget_models() -> None:
    """Have every function called again: in a notebook, what it loads may have been trained anew."""
    _KEPT.clear()
    forget_own_weights()


def _read(family: Own, notice: Callable[[str], None]) -> nn.Module:
    if family.model is not None:
        return built_module(family.model, family.weights, notice)
    return module_of_onnx(family._file) if family._file.suffix == GRAPH else module_of(family._file, notice)


def inputs_in(program: Path) -> tuple[NamedInput, ...]:
    """Return a program's inputs, without their batch. Raises ConfigurationError for an ONNX graph of several."""
    if program.suffix == GRAPH:
        return (NamedInput(name="images", shape=onnx_input_shape(program)),)
    return program_inputs(program)


def require_fit(module: nn.Module, spec: TaskSpec, called: str) -> None:
    """Check a model's outputs for two blank samples against a task's heads. Raises ConfigurationError."""
    if spec.plain:
        classes = _classes_of(module, spec.input, called)
        if classes != spec.head.classes:
            raise ConfigurationError.one(
                f"`{called}` has {classes} classes, and task `{spec.name}` has {spec.head.classes}",
                "give a model for the same classes, in the same order",
            )
        return
    dense = [head.name for head in spec.heads if head.kind in MAPS]
    if dense and len(spec.input.shape) != _IMAGE:
        raise ConfigurationError.one(
            f"head `{dense[0]}` is a map, and the {spec.input.what} of task `{spec.name}` have no rows and columns",
            "give images (C, H, W); of a signal (C, 1, T)",
        )
    for mode, given in (("", module), ("in training mode ", copy.deepcopy(module).train())):
        with torch.random.fork_rng(devices=[]):  # dropout draws in training mode
            answer = _answer_to_blank(given, spec.input, called)
        if reason := misfit(answer, spec.heads, _BATCH):
            raise ConfigurationError.one(
                f"`{called}` {mode}returns {reason} (task `{spec.name}`)",
                "let it return a dict by these names, or a tuple in this order",
            )
        _require_finite(pytree.tree_leaves(answer), called)


def classes_of(module: nn.Module, given: InputSpec, called: str) -> int:
    """Return the number of a model's classes, from its outputs for two blank images, signals or texts.

    Raises ConfigurationError, with a remedy, for a model that doesn't take such inputs only, returns anything but
    logits (N, classes), returns NaN or infinity, or answers the same samples differently each time.
    """
    classes = _classes_of(module, given, called)
    require_repeatable(module, given, called)
    return classes


def _classes_of(module: nn.Module, given: InputSpec, called: str) -> int:
    answer, what = _answer_to_blank(module, given, called), given.what
    found = logits_in(answer)
    if found is None or found.dim() != 2 or len(found) != _BATCH:
        raise ConfigurationError.one(
            f"`{called}` returns {described(answer if found is None else found)} for two {what}, and logits "
            "(N, classes) were expected",
            f"give a model that classifies whole {what}; of several tensors call one `logits`",
        )
    _require_finite([found], called)
    return int(found.shape[1])


def require_repeatable(module: nn.Module, given: InputSpec, called: str) -> None:
    """Raise ConfigurationError if two answers of a model in eval mode to the same samples differ.

    No file can be compared with it.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        first, second = (logits_in(module(torch.from_numpy(given.random(0, _BATCH)))) for _ in range(2))
    assert first is not None
    assert second is not None
    if not torch.allclose(first, second, rtol=1e-3, atol=1e-3 * float(first.abs().max()), equal_nan=True):
        raise ConfigurationError.one(
            f"`{called}` answers the same {given.what} differently each time, also in eval mode",
            "let nothing draw or count in its forward: F.dropout(x, p, self.training), or nn.Dropout",
        )


def _answer_to_blank(module: nn.Module, given: InputSpec, called: str) -> object:
    """Return a model's output for two blank samples. Raises ConfigurationError if it can't take them."""
    shape, what = given.shape, given.what
    if given.text is None and not given.named and len(shape) not in _AXES:
        raise ConfigurationError.one(
            f"`{called}`: inputs {' x '.join(map(str, shape))} have {len(shape)} axes, and {_LATER}",
            "give a model that takes (N, C, H, W) or (N, C, T)",
        )
    inputs = inputs_of(module)
    if given.named:
        _require_named(module, given.named, called)
    elif len(inputs) > 1:
        raise ConfigurationError.one(
            f"`{called}` takes {len(inputs)} inputs ({', '.join(inputs)}), and {what} of one input were given",
            "name the arrays of the .npz as the parameters of forward, or give each a shape, --input 3x224x224,4",
        )
    try:
        with torch.no_grad():
            return module(torch.from_numpy(given.example(_BATCH)))
    except (Exception, SystemExit) as error:  # a person's code may raise anything
        if is_want_of_memory(error) or is_shortage(error):
            raise
        reason = first_line(error)
        tokens = not given.named and "indices" in reason and ("Long" in reason or "Int" in reason)
        raise ConfigurationError.one(
            f"`{called}` takes whole numbers (tokens)"
            if tokens
            else f"`{called}` can't take two {what} {given if given.named else shape}: {reason}",
            "give a project with the task text-classification"
            if tokens
            else "give the shapes and types that it was trained with"
            if given.named
            else "give the size that it was trained with, to the task or as "
            f"--input {'3x224x224' if given.is_image else '1x16000'}",
        ) from error


def _require_named(module: nn.Module, named: Sequence[NamedInput], called: str) -> None:
    """Check named inputs against those of a module. Raises ConfigurationError."""
    required, known, given = inputs_of(module), inputs_of(module, optional=True), [one.name for one in named]
    if missing := [name for name in required if name not in given]:
        raise ConfigurationError.one(
            f"`{called}` takes {len(required)} inputs ({', '.join(required)}), and `{missing[0]}` is not given",
            "give all of them, by the names of forward's parameters",
        )
    if unknown := [name for name in given if known and name not in known]:
        raise ConfigurationError.one(
            f"`{called}` has no input `{unknown[0]}`: its forward takes {', '.join(known)}",
            "name the inputs as forward's parameters",
        )


def _require_finite(answers: Sequence[Tensor], called: str) -> None:
    if not all(bool(torch.isfinite(answer).all()) for answer in answers):
        raise ConfigurationError.one(
            f"`{called}` outputs NaN or infinity for a blank input", "check its weights: are they those of this model?"
        )
