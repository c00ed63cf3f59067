"""A teacher written inside another's options, as it would be in the project file: ``{kind: torch, module: ...}``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic_core import PydanticCustomError

from edgekd import plugins
from edgekd.records import Record
from edgekd.tasks._protocol import Task
from edgekd.teachers._protocol import Preparable, Teacher

if TYPE_CHECKING:
    from edgekd.students._protocol import StageProgress

__all__ = ["made_teacher", "prepared_teacher", "resolved_teacher"]


def resolved_teacher(written: Mapping[str, Any], context: Any) -> Mapping[str, Any]:
    """The same with its options checked, and its paths made absolute while the project's folder is known.

    For a validator: raises ValidationError, and ConfigurationError where there is no such kind.
    """
    if "kind" not in written:
        raise PydanticCustomError("member", "a teacher needs its `kind`: torch, onnx, ...")
    teacher = made_teacher(written, context)
    return {"kind": written["kind"], **(teacher.model_dump(mode="json") if isinstance(teacher, Record) else {})}


def made_teacher(written: Mapping[str, Any], context: Any = None) -> Teacher:
    """The teacher itself, neither prepared nor bound. Raises as `resolved_teacher` does."""
    options = {key: value for key, value in written.items() if key != "kind"}
    teacher: Teacher = plugins.load("edgekd.teachers", str(written["kind"])).model_validate(options, context=context)
    return teacher


def prepared_teacher(
    teacher: Teacher, task: Task, cache: Path, progress: Callable[[StageProgress], None], stop: Callable[[], bool]
) -> Teacher:
    """Made from the task's data where it has to be, not yet bound. Raises Interrupted when ``stop()``."""
    asked = cast(object, teacher)  # being Preparable is no part of being a Teacher
    return asked.prepare(task, cache, progress, stop) if isinstance(asked, Preparable) else teacher
