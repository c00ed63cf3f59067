"""Nested teachers: a teacher inside another's options, as in the project file: ``{kind: torch, module: ...}``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from edgekd import plugins
from edgekd.errors import UnknownName
from edgekd.records import Record, mistakes_under
from edgekd.tasks._protocol import Task, TaskSpec
from edgekd.teachers._protocol import PreparableTeacher, Sketched, Teacher

if TYPE_CHECKING:
    from edgekd.events import StageProgress

__all__ = ["made_teacher", "prepared_teacher", "resolved_teacher", "resolved_teachers", "untrained_teacher"]


def resolved_teachers(written: Iterable[tuple[str | int, Mapping[str, Any]]], context: Any) -> list[Mapping[str, Any]]:
    """Apply `resolved_teacher` to several, by the place of each. The validation errors of all are raised together."""
    found, mistakes = [], list[InitErrorDetails]()
    for at, options in written:
        try:
            found.append(resolved_teacher(options, context))
        except PydanticCustomError as error:
            mistakes.append(InitErrorDetails(type=error, loc=(at,), input=options))
        except ValidationError as error:
            mistakes += mistakes_under(at, error)
    if mistakes:
        raise ValidationError.from_exception_data("teachers", mistakes)
    return found


def resolved_teacher(written: Mapping[str, Any], context: Any) -> Mapping[str, Any]:
    """Validate a teacher's options, and make its paths absolute while the project's folder is known.

    For use in a validator: raises ValidationError, or PydanticCustomError for an unknown kind.
    """
    if "kind" not in written:
        raise PydanticCustomError("member", "a teacher needs its `kind`: torch, onnx, ...")
    try:
        teacher = made_teacher(written, context)
    except UnknownName as error:  # pydantic reports it at the place of this teacher
        raise PydanticCustomError("edgekd_kind", "{reason}", {"reason": " ".join(str(error).split())}) from error
    return {"kind": written["kind"], **(teacher.model_dump(mode="json") if isinstance(teacher, Record) else {})}


def made_teacher(written: Mapping[str, Any], context: Any = None) -> Teacher:
    """Build the teacher, neither prepared nor bound. Raises ValidationError, and UnknownName for an unknown kind."""
    options = {key: value for key, value in written.items() if key != "kind"}
    teacher: Teacher = plugins.load("edgekd.teachers", str(written["kind"])).model_validate(options, context=context)
    return teacher


def untrained_teacher(teacher: Teacher, spec: TaskSpec) -> Teacher:
    """Return what `prepared_teacher` returns, with random weights if it would be trained. Raises ConfigurationError."""
    asked = cast(object, teacher)
    return asked.untrained(spec) if isinstance(asked, Sketched) else teacher


def prepared_teacher(
    teacher: Teacher, task: Task, cache: Path, progress: Callable[[StageProgress], None], stop: Callable[[], bool]
) -> Teacher:
    """Return the teacher, trained on the task's data if needed, not yet bound. Raises Interrupted when ``stop()``."""
    asked = cast(object, teacher)  # being Preparable is no part of being a Teacher
    return asked.prepare(task, cache, progress, stop) if isinstance(asked, PreparableTeacher) else teacher
