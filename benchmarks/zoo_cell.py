"""One cell of the zoo, made in a process of its own: a model as one's own, or as the files of one format.

Each column that is done is a line of JSON in the file of results, so that a process which dies or hangs leaves what it
had. A column is figures, or ``reason`` with ``do``: what stands in the way and what to do about it, as edgekd tells a
person. Anything else that is raised is ``traceback``.
"""

from __future__ import annotations

import copy
import json
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from zoo_models.catalogue import BACKENDS, ZOO, Animal
from zoo_models.weights import samples_of, seeded

from edgekd.agent.fingerprint import fingerprint
from edgekd.agent.runtimes import open_runtime
from edgekd.artefacts import Artefact, Backend, Format
from edgekd.compress.quantization.calibrate import calibrate
from edgekd.devices._protocol import Fingerprint, Job
from edgekd.errors import ConfigurationError, EdgeKDError
from edgekd.export._protocol import Exporter, ExportOptions
from edgekd.export.parity import compared, expected_answers
from edgekd.export.tensors import answers_of, to_model_inputs
from edgekd.ir.backends import asked_of_agent
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
from edgekd.students._protocol import Student
from edgekd.students.heads.many import raw_names
from edgekd.students.unpacking import inputs_of, unpack_inputs
from edgekd.tasks._protocol import HeadSpec, InputSpec, Rows, TaskSpec, TextSpec
from edgekd.tasks.named_inputs import NamedInput, pack

__all__ = ["make_cell"]

_SAMPLES, _CALIBRATION = 48, 96
_COUNTED = 192  # samples on which a static int8 file is compared with its integer reference
_FOLDER = Path(__file__).resolve().parent


class _Named(nn.Module):
    """A model's answers by the names of its task's heads."""

    def __init__(self, model: nn.Module, spec: TaskSpec) -> None:
        super().__init__()
        self.model = model
        self.names = [name for head in spec.heads for name in raw_names(head)]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        answers = self.model(images)
        return dict(zip(self.names, answers if isinstance(answers, tuple) else (answers,), strict=True))


@dataclass(frozen=True)
class Work:
    """A model with what its columns share."""

    animal: Animal
    scratch: Path

    @cached_property
    def model(self) -> nn.Module:
        return seeded(self.animal)

    @cached_property
    def device(self) -> Fingerprint:
        return Fingerprint.model_validate(fingerprint(asked_of_agent()))

    @cached_property
    def spec(self) -> TaskSpec:
        heads = []
        for place, answer in enumerate(self.animal.answers):
            kind, _, size = answer.partition(":")
            numbers = {"mean": (0.0,) * int(size), "std": (1.0,) * int(size)} if kind == "regression" else {}
            heads.append(HeadSpec(name=("logits", "numbers")[place], kind=kind, classes=int(size), **numbers))
        shape, ids = self.animal.inputs[0], self.animal.tokens
        given = InputSpec(shape=shape, raw_dtype="float32", raw_range=(-4.0, 4.0))
        if len(self.animal.inputs) > 1:
            named = zip(inputs_of(self.model), self.animal.inputs, strict=True)
            given = InputSpec.of_named([NamedInput(name=name, shape=shape) for name, shape in named], (-4.0, 4.0))
        if ids:
            text = TextSpec(vocabulary=ids, padding=0, tokenizer="0" * 64)
            given = InputSpec(name="tokens", shape=shape, raw_dtype="int32", raw_range=(0, ids - 1), text=text)
        return TaskSpec(name="zoo", input=given, head=heads[0], more=tuple(heads[1:]), data="0" * 64)

    @cached_property
    def module(self) -> nn.Module:
        """The model, which takes several inputs packed."""
        return unpack_inputs(copy.deepcopy(self.model), self.spec.input)

    @cached_property
    def student(self) -> Student:
        """As it is exported."""
        module = self.module if self.spec.plain else _Named(self.module, self.spec)
        return Student(module=module, task=self.spec, family=self.animal.name, options={}, arch=Arch.of({}))

    @cached_property
    def raw(self) -> np.ndarray[Any, Any]:
        return self.samples(_SAMPLES, seed=2)

    def samples(self, count: int, seed: int) -> np.ndarray[Any, Any]:
        """Raw samples, several inputs packed."""
        arrays = [values.numpy() for values in samples_of(self.animal, count, seed)]
        return pack(arrays) if self.spec.input.named else arrays[0].astype(self.spec.input.raw_dtype)

    def own(self) -> dict[str, Any]:
        """Options of a person's own model: its function and its weights."""
        weights = self.scratch / f"{self.animal.name}.safetensors"
        save_file({name: value.contiguous() for name, value in _untied(self.model).items()}, weights)
        return {"of": f"zoo_models.{self.animal.build}", "weights": str(weights)}


def _untied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def taken(work: Work) -> dict[str, Any]:
    """As one's own: by the family ``pruned``, or whole, by ``own``; it answers as the model does."""
    from edgekd.compress.pruning.family import Pruned
    from edgekd.students.own import Own

    given = work.own()
    options = {"model": given["of"], "weights": given["weights"]}
    family: Pruned | Own = Pruned.model_validate(options, context={"folder": _FOLDER})
    try:
        space = family.space(work.spec)
    except ConfigurationError:
        family = Own.model_validate(options, context={"folder": _FOLDER})
        space = family.space(work.spec)
    original = family.original(work.spec)
    assert original is not None
    module = family.build(original, work.spec)
    images = torch.from_numpy(work.raw)
    with torch.no_grad():
        answers = zip(pytree.tree_leaves(module(images)), pytree.tree_leaves(work.module(images)), strict=True)
    difference = max(float((found - expected).abs().max()) for found, expected in answers)
    return {"archs": space.size, "difference": difference}


def groups(work: Work) -> dict[str, Any]:
    """How many of its dependency groups can lose channels; of the others, the first reason."""
    from edgekd.compress.pruning.groups import find_groups

    if work.spec.plain or work.spec.more:
        taken(work)  # a model that isn't taken has its reason here too
    found, left_out = find_groups(work.module, work.spec.input)
    return {
        "prunable": len(found),
        "groups": len(found) + len(left_out),
        "left_out": [f"`{layer}`: {reason}" for layer, reason in left_out],
    }


def teacher(work: Work) -> dict[str, Any]:
    """As a teacher of its own task: whether it answers, and at how many points it can be looked into."""
    from edgekd.students.points import layout_of
    from edgekd.teachers.binding import bind
    from edgekd.teachers.torch import TorchTeacher

    given = work.own()
    options = {"module": given["of"], "weights": given["weights"], "mean": [0.0], "std": [1.0]}
    made = TorchTeacher.model_validate(options, context={"folder": _FOLDER})
    bound = bind(made, work.spec)
    assert isinstance(bound, TorchTeacher)
    return {"points": len(layout_of(bound.network(), work.spec.input).points)}


def exported(work: Work, part: str, precision: Precision) -> dict[str, Any]:
    """A file, run here: parity with what it was made of, and agreement with that and with the float model.

    Of static int8 also ``reference``, the agreement with the integer reference of the runtime, which computes what the
    encodings say, on `_COUNTED` samples, and ``in_float``, operators that compute in float, counted.
    """
    from edgekd import plugins

    backend = Backend.model_validate(BACKENDS[part])
    options = ExportOptions()
    calibration = work.samples(_CALIBRATION, seed=3)
    student = calibrate(work.student, calibration, precision, "percentile", work.device, backend)
    exporter: Exporter = plugins.load("edgekd.exporters", part)()
    path = work.scratch / f"{work.animal.name}-{precision.value}{Format(part).suffix}"
    artefact = exporter.export(student, options, backend, work.device, path)
    found = _answers(artefact, backend, student, work.raw, options)
    job = Job(artefact=artefact, backend=backend)
    report = compared(job, student, work.raw, options, found)
    if not report.holds:
        raise ConfigurationError.one(
            f"{precision.value}: parity doesn't hold: {report.detail}", "use another runtime or precision"
        )
    as_float = expected_answers(work.student, work.raw, options)
    figures = {
        "bytes": artefact.size_bytes,
        "difference": report.largest,
        "unit": report.unit,
        "agreement": _agreement(work.spec, found, as_float),
    }
    if precision is not Precision.INT8:
        return figures
    more = work.samples(_COUNTED, seed=4)
    answers = _answers(artefact, backend, student, more, options)
    return figures | {
        "reference": _agreement(work.spec, answers, expected_answers(student, more, options, backend)),
        "counted": _COUNTED,
        "in_float": student.annotations.in_float,
    }


def _answers(
    artefact: Artefact, backend: Backend, student: Student, raw: np.ndarray[Any, Any], options: ExportOptions
) -> Rows:
    runtime = open_runtime(backend.runtime, backend.provider, 1)
    runtime.load(str(artefact.path))
    inputs = to_model_inputs(raw, student.task, options, student.annotations.activations.get("input"))
    rows = []
    for sample in zip(*inputs, strict=True):
        runtime.prepare([values[None] for values in sample])
        runtime.call()
        rows.append(runtime.read())
    outputs = [np.concatenate(column) for column in zip(*rows, strict=True)]
    return answers_of(outputs, student.task, options, None)


def _agreement(spec: TaskSpec, found: Rows, expected: Rows) -> float:
    """Share of classes that are the same, of the image or of every pixel; of numbers, 1 less the relative error."""
    shares = []
    for head in spec.heads:
        ours, theirs = (rows if spec.plain else rows[head.name] for rows in (found, expected))
        if head.kind == "classification":
            shares.append(float((ours.argmax(-1) == theirs.argmax(-1)).mean()))
        elif head.kind == "segmentation":
            shares.append(float((ours == theirs).mean()))
        else:
            error = np.abs(ours - theirs).mean() / np.abs(theirs).mean()
            shares.append(max(0.0, 1.0 - float(error)))
    return round(min(shares), 4)


def predicted(work: Work, part: str) -> dict[str, Any]:
    """How much of the float32 file `edgekd predict` can read: kernels, and those that are of a sort it knows."""
    from edgekd.export.kernels.read import kernels_of_file

    path = work.scratch / f"{work.animal.name}-float32{Format(part).suffix}"
    if not path.is_file():
        raise ConfigurationError.one("there is no float32 file", "see the column float32")
    kernels = kernels_of_file(Artefact.of(path))
    return {"kernels": len(kernels), "known": sum(kernel.kind != "other" for kernel in kernels)}


def columns(work: Work, part: str) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Column and the work for it."""
    if part == "own":
        yield "taken", lambda: taken(work)
        yield "groups", lambda: groups(work)
        yield "teacher", lambda: teacher(work)
        return
    for precision in (Precision.FLOAT32, Precision.DYNAMIC_INT8, Precision.INT8):
        yield precision.value, lambda precision=precision: exported(work, part, precision)
    yield "predict", lambda: predicted(work, part)


def made(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A column's figures, its reason, or its traceback."""
    try:
        return work()
    except ConfigurationError as error:
        first = error.problems[0]
        return {"reason": first.message, "do": first.remedy, "problems": len(error.problems)}
    except EdgeKDError as error:
        return {"reason": error.message, "do": error.remedy}
    except Exception:  # noqa: BLE001  # a bug of edgekd: what this benchmark is there to find
        return {"traceback": traceback.format_exc()}


def make_cell(name: str, part: str, results: Path, scratch: Path, log: Path) -> None:
    """Make one cell, in this process, whose output goes to ``log``."""
    with log.open("wb") as said:
        for descriptor in (1, 2):
            os.dup2(said.fileno(), descriptor)
    torch.set_num_threads(1)
    work = Work(next(animal for animal in ZOO if animal.name == name), scratch)
    with results.open("a") as stream:
        for column, what in columns(work, part):
            stream.write(json.dumps({column: made(what)}) + "\n")
            stream.flush()
    os._exit(0)  # what converters loaded may hang in its destructors
