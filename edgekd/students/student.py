"""Construction, saving and loading of students. A saved student is a folder of two files, neither of them code::

    weights.safetensors   every parameter and buffer, tied ones once
    student.json          task, family with its options, arch, annotations, and the SHA-256 of the weights

The family is found by its name in any process; options that refer to code have absolute paths. ``student.json`` is
written last, and ends with a digest of itself: a folder without it, or with other contents, is incomplete or damaged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from edgekd import plugins
from edgekd.errors import ConfigurationError, Place, about
from edgekd.ir.encoding import Annotations
from edgekd.ir.space import Arch
from edgekd.records import Digest, Filed, digest_bytes
from edgekd.students._protocol import Family, Student
from edgekd.students.fold import fold_module
from edgekd.students.weights import tie_equal_weights
from edgekd.tasks._protocol import TaskSpec

__all__ = ["has_inherited", "is_whole", "load_student", "new_student", "save_student"]

_RECORD, _WEIGHTS, _DIGEST = "student.json", "weights.safetensors", "digest"


class StudentFile(Filed):
    """Content of ``student.json``."""

    schema_: Literal["edgekd.student/1"] = Field(default="edgekd.student/1", alias="schema")
    task: TaskSpec
    family: str
    options: Mapping[str, Any]
    arch: Arch
    annotations: Annotations
    weights: Digest


def new_student(family: Family, arch: Arch, spec: TaskSpec, seed: int) -> Student:
    """Build an arch with random weights (or inherited ones, if the family has them). Same seed, same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = family.build(arch, spec).eval()
    options = family.model_dump(mode="json") if isinstance(family, BaseModel) else {}
    return Student(module=module, task=spec, family=family.name, options=options, arch=arch)


def has_inherited(student: Student) -> bool:
    """Return whether the student's family starts from trained weights."""
    return student.family in plugins.names("edgekd.families") and bool(
        plugins.load("edgekd.families", student.family).inherits
    )


def save_student(student: Student, folder: Path) -> Digest:
    """Write a student to a folder, which is created. Returns the digest of its content, weights included."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = save_tensors(_tensors(student.module))
    record = StudentFile(
        task=student.task,
        family=student.family,
        options=student.options,
        arch=student.arch,
        annotations=student.annotations,
        weights=digest_bytes(weights),
    )
    _replace(folder / _WEIGHTS, weights)
    written = {**record.model_dump(mode="json"), _DIGEST: record.digest()}
    _replace(folder / _RECORD, (json.dumps(written, indent=1) + "\n").encode())
    return record.digest()


def is_whole(folder: Path) -> bool:
    """Return whether a saved student is intact. Builds nothing. Raises OSError if it can't be read."""
    try:
        _read(folder)
    except ConfigurationError as error:
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from None
        return False
    return True


def load_student(folder: Path) -> Student:
    """Load a student: the same module, annotations and, saved again, the same digest.

    Raises ConfigurationError if a file is missing or damaged, or doesn't fit what the family builds now.
    """
    place = Place(str(folder / _RECORD))
    record, weights = _read(folder)
    try:
        tensors = load_tensors(weights)
    except SafetensorError as error:
        raise ConfigurationError.one(f"{_WEIGHTS} is damaged: {error}", _AGAIN, place) from error
    try:
        family: Family = plugins.load("edgekd.families", record.family).model_validate(
            dict(record.options), context={"folder": folder}
        )
    except ValidationError as error:
        raise ConfigurationError.one(f"the options of the family `{record.family}`: {error}", place=place) from error
    with torch.random.fork_rng(devices=[]):
        module = family.build(record.arch, record.task).eval()
    if set(_tensors(module)) != set(tensors):  # it was saved after folding
        module = fold_module(module, record.task.input)
    if set(_tensors(module)) != set(tensors):  # and after equal weights were tied
        tie_equal_weights(module)
    _fill(module, tensors, place)
    return Student(
        module=module,
        task=record.task,
        family=record.family,
        options=record.options,
        arch=record.arch,
        annotations=record.annotations,
    )


_AGAIN = "delete its folder, and run the command that wrote it again"


def _read(folder: Path) -> tuple[StudentFile, bytes]:
    """Read the two files, checked against their digests. Raises ConfigurationError."""
    place = Place(str(folder / _RECORD))
    try:
        written = json.loads((folder / _RECORD).read_bytes())
        weights = (folder / _WEIGHTS).read_bytes()
        digest = written.pop(_DIGEST) if isinstance(written, dict) else ""
        record = StudentFile.model_validate(written)
    except OSError as error:
        raise ConfigurationError.one(f"can't read {error.filename}: {error.strerror}", _AGAIN, place) from error
    except (ValueError, KeyError, RecursionError) as error:
        raise ConfigurationError.one(f"is not a student of this version: {error}", _AGAIN, place) from error
    if record.digest() != digest:
        raise ConfigurationError.one("its content has changed since it was written", _AGAIN, place)
    if digest_bytes(weights) != record.weights:
        raise ConfigurationError.one("the weights beside it are not the ones it was saved with", _AGAIN, place)
    return record, weights


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers by name; tied ones under the first name only."""
    seen: dict[int, str] = {}
    found = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if seen.setdefault(id(tensor), name) == name:
            found[name] = tensor.detach().contiguous().clone()
    return found


def _fill(module: nn.Module, tensors: Mapping[str, torch.Tensor], place: Place) -> None:
    own = _tensors(module)
    if own.keys() != tensors.keys() or any(own[name].shape != tensors[name].shape for name in own):
        wrong = sorted(own.keys() ^ tensors.keys()) or sorted(n for n in own if own[n].shape != tensors[n].shape)
        raise ConfigurationError.one(
            f"the weights don't fit what the family builds: {', '.join(wrong[:4])}",
            "the family's code or options changed since it was saved; use the version that wrote it",
            place,
        )
    module.load_state_dict(dict(tensors), strict=False)  # tied names are absent, and filled through their first name


def _replace(path: Path, data: bytes) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with scratch.open("wb") as stream, about(path):
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(path)
